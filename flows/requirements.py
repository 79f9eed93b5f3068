"""Requirements of a run as terminal and report show them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from flows.gates import stored_summary
from flows.requirement_words import sections
from tasks.errors import RequirementError

if TYPE_CHECKING:
    from storage.files import Place


def requirements(folder: Place) -> dict[str, Any]:
    """What the summary of a finished run says of its requirements; nothing where it has none."""
    summary = stored_summary(folder)
    return {name: summary[name] for name in ("requirements", "last") if name in summary}


def raise_unmet(missed: Sequence[str]) -> None:
    """End a command whose run does not meet its requirements.

    Raises:
        RequirementError: where there are such requirements.
    """
    if missed:
        raise RequirementError("; ".join(missed))


def print_requirements(folder: Place) -> None:
    """Print what a finished run requires, and whether that holds, row by row."""
    found = requirements(folder)
    if not found:
        return
    from rich.table import Table

    from flows.terminal import wide_console

    table = Table(title="requirements", title_justify="left")
    for name in ("", "requirement", "of"):
        table.add_column(name, overflow="fold")
    for name in ("value", "last run", "difference"):
        table.add_column(name, justify="right")
    for section in sections(found["requirements"]):
        for i, line in enumerate(section["lines"]):
            table.add_row(
                "met" if line["passed"] else "NOT MET",
                section["text"] if i == 0 else "",
                "\n".join((line["where"], *line["notes"])),
                line["value"],
                line["last"],
                line["difference"],
            )
    wide_console().print(table, markup=False)
