"""The command ``audit-resize``: how well another picture can be hidden from a resize."""

from __future__ import annotations

import re
from typing import Annotated, Any

import typer
from rich.table import Table

from flows.command import JsonOption, guarded, print_json
from flows.terminal import wide_console
from tasks.errors import SpecError

LONGEST = 32768
STYLES = {"safe in general": "green", "safe for unrelated pairs": "yellow", "open": "red"}

SIZE = "HEIGHTxWIDTH"


def audit_resize(
    library: Annotated[
        str | None, typer.Option(help="opencv, pillow or torch.", metavar="NAME")
    ] = None,
    algorithm: Annotated[
        str | None, typer.Option(help="nearest, linear, cubic, lanczos, area, ...", metavar="NAME")
    ] = None,
    antialias: Annotated[
        bool, typer.Option("--antialias", help="torch's antialiased linear and cubic.")
    ] = False,
    source: Annotated[str | None, typer.Option(help="Size of the images.", metavar=SIZE)] = None,
    target: Annotated[
        str | None, typer.Option(help="Size that the model sees.", metavar=SIZE)
    ] = None,
    table: Annotated[
        bool, typer.Option("--table", help="Every library and algorithm at several ratios.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Say how well another picture can be hidden from a resize. No image is needed."""

    def action() -> None:
        if table:
            rows = resize_table(library, algorithm, source, target)
            if as_json:
                print_json([one for row in rows for one in row])
            else:
                _print_table(rows)
            return
        found = resize_audit(library, algorithm, antialias, source, target)
        if as_json:
            print_json(found)
        else:
            _print_audit(found)

    guarded(action)


def _size(option: str, text: str | None) -> tuple[int, int]:
    """A size from the command line: ``1024x768`` (height, width), or ``224`` for a square."""
    found = re.fullmatch(r"(\d{1,9})(?:[xX](\d{1,9}))?", text or "")
    height, width = (int(found[1]), int(found[2] or found[1])) if found else (0, 0)
    if not (1 <= height <= LONGEST and 1 <= width <= LONGEST):
        raise SpecError(
            f"--{option}: expected {SIZE} with sides from 1 to {LONGEST}, such as 1024x768, "
            f"got {'nothing' if text is None else repr(text)}"
        )
    return height, width


def resize_audit(
    library: str | None,
    algorithm: str | None,
    antialias: bool,
    source: str | None,
    target: str | None,
) -> dict[str, Any]:
    """Audit one resize, as plain values.

    Raises:
        SpecError: something missing, a size that is none, or a method that no library offers.
    """
    from defender.scaling.audit import audit
    from defender.scaling.libraries import ALGORITHMS
    from defender.scaling.scaler import Scaler

    if library is None:
        raise SpecError(f"--library: expected {' | '.join(ALGORITHMS)}, got nothing")
    if algorithm is None:
        known = " | ".join(ALGORITHMS.get(library, ())) or "a name"
        raise SpecError(f"--algorithm: expected {known}, got nothing")
    sizes = _size("source", source), _size("target", target)
    try:
        scaler = Scaler(library, algorithm, antialias, *sizes)
    except ValueError as error:
        raise SpecError(f"--{error}") from None
    return audit(scaler).as_dict()


def resize_table(
    library: str | None, algorithm: str | None, source: str | None, target: str | None
) -> list[list[dict[str, Any]]]:
    """Audits of all methods, or of those of a library or name: a list a method.

    Raises:
        SpecError: one size without the other, a size that is none, or names that fit nothing.
    """
    from defender.scaling.audit import METHODS, table

    methods = [one for one in METHODS if library in (None, one[0]) and algorithm in (None, one[1])]
    if not methods:
        asked = " ".join(name for name in (library, algorithm) if name is not None)
        raise SpecError(f"--table: expected a library and algorithm that exist, got {asked!r}")
    sizes = None
    if source is not None or target is not None:
        sizes = [(_size("source", source), _size("target", target))]
    return [[one.as_dict() for one in row] for row in table(sizes, methods)]


def _name(found: dict[str, Any]) -> str:
    smooth = " antialiased" if found["antialias"] else ""
    return f"{found['library']} {found['algorithm']}{smooth}"


def _sides(size: list[int]) -> str:
    return f"{size[0]}x{size[1]}"


def _coloured(found: dict[str, Any], text: str) -> str:
    style = STYLES[found["verdict"]]
    return f"[{style}]{text}[/{style}]"


def _print_audit(found: dict[str, Any]) -> None:
    sizes = f"{_sides(found['source'])} to {_sides(found['target'])}"
    shown = Table(title=f"{_name(found)}, {sizes}", title_justify="left", show_header=False)
    shown.add_row("hiding gain", f"{found['hiding_gain']:.1f} dB")
    shown.add_row("pixels considered", f"{100 * found['considered_fraction']:.1f} %")
    shown.add_row("pixels considered, by weight", f"{100 * found['effective_fraction']:.1f} %")
    shown.add_row("verdict", _coloured(found, found["verdict"]))
    shown.add_row("advice", found["advice"])
    wide_console().print(shown)


def _print_table(rows: list[list[dict[str, Any]]]) -> None:
    shown = Table(title="hiding gain, dB", title_justify="left")
    shown.add_column("resize")
    for one in rows[0]:
        ratio = one["source"][0] / one["target"][0]
        heading = f"{_sides(one['source'])}\nto {_sides(one['target'])}\nratio {ratio:.2f}"
        shown.add_column(heading, justify="right")
    for row in rows:
        gains = [_coloured(one, f"{one['hiding_gain']:.1f}") for one in row]
        shown.add_row(_name(row[0]), *gains)
    console = wide_console()
    console.print(shown)
    console.print("below 0.5: safe in general; below 5: safe for unrelated pairs; above: open")
