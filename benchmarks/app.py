"""How fast the app answers: first paint, a picture tried, pages of a large store.

The server is the real one, in a process of its own. Seconds are those of a browser where there is
Chromium, else those of requests alone.
"""

from __future__ import annotations

import os
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any
from urllib.parse import urlencode

from flows.app.try_form import Form
from flows.report import render
from tasks.outputs import write_outputs
from tasks.preview import Preview, Subjects
from tasks.preview_trial import Told
from tasks.spec_files import parse_spec
from tasks.survey import survey
from tasks.without_prefect import compute_left
from tasks.workbench import Workbench
from tests.flows.app_server import CHROMIUM, app_at, browser, page_of

SIZES = (10_000, 60_000)
"""Images of the stores that are browsed; the larger one where ``--images`` allows it."""
AGAIN = 7
"""Times that each is measured; the figures are medians and the worst."""
LIMITS = {"paint": 1.0, "try": 1.0, "page": 0.2}
"""Seconds that are aimed at, on a machine that does nothing else."""
VIEWS = {
    "in order": {"attack": "FGSM", "purifier": "median"},
    "fooled, worst first by PSNR": {
        **{"attack": "FGSM", "purifier": "median"},
        **{"show": "fooled", "order": "worst", "by": "psnr"},
    },
}
CLICKED = """async ([button, changing, drawn, done]) => {
  const text = () => document.querySelector(changing)?.textContent ?? '';
  const wait = () => new Promise(resolve => setTimeout(resolve, 1));
  const before = text(), finished = new RegExp(done);
  let moved = !finished.test(before);
  const over = now => done === '' ? now !== before : moved && finished.test(now);
  const begun = performance.now();
  document.querySelector(button).click();
  while (!over(text())) {
    moved ||= !finished.test(text());
    if (performance.now() - begun > 60000) throw new Error(`nothing comes of ${button}`);
    await wait();
  }
  const told = performance.now() - begun;
  const seen = one => one.getBoundingClientRect().top < innerHeight;
  const pictures = () => [...document.querySelectorAll(drawn)].filter(seen);
  while (!pictures().every(one => one.complete && one.naturalWidth)) await wait();
  return [told / 1000, (performance.now() - begun) / 1000];
}"""
"""Seconds from a click until a text has changed, and until all pictures in sight are drawn."""
PAINT = "performance.getEntriesByName('first-contentful-paint')[0].startTime / 1000"


def specification(count: int) -> dict[str, Any]:
    """The run that is browsed: small pictures, one attack, one purifier."""
    return {
        "name": "browsed",
        "dataset": {"kind": "builtin:shapes", "count": count, "chunk_size": 1000},
        "model": {"name": "shapes-cnn"},
        "attacks": [{"name": "FGSM", "label": "FGSM", "epsilon": "8/255"}],
        "purifiers": [{"name": "Median", "label": "median"}],
        "metrics": ["accuracy", "attack_success", "psnr"],
    }


def store_of(count: int, folder: Path) -> Path:
    """A store with one finished run over so many images."""
    root = folder / f"store-{count}"
    bench = Workbench(parse_spec(specification(count)), folder, str(root))
    bench.catalogue(keep=True)
    state = survey(bench, hashed=False)
    compute_left(state)
    write_outputs(state, render)
    return root


def told(seconds: list[float]) -> str:
    """The median and the worst of several."""
    return f"{median(seconds):.3f} s, at worst {max(seconds):.3f}"


def requested(address: str) -> float:
    """Seconds until all of a page has arrived."""
    begun = time.perf_counter()
    with urllib.request.urlopen(address, timeout=120) as answer:
        answer.read()
    return time.perf_counter() - begun


@contextmanager
def started(store: Path, folder: Path, figures: dict[str, Any]) -> Iterator[str]:
    """The app, and how long it took to answer."""
    begun = time.perf_counter()
    with app_at(store, folder) as address:
        figures.setdefault(
            "server: process to first answer", f"{time.perf_counter() - begun:.2f} s"
        )
        yield address


def tried(made: Any, address: str, figures: dict[str, Any]) -> None:
    """First paint, and a picture of 32 x 32 pixels through I-FGSM and a purifier."""
    paints = []
    for _ in range(AGAIN):
        with page_of(made, address) as page:
            page.goto(address)
            page.wait_for_selector("[data-test=try]")
            paints.append(float(page.evaluate(PAINT)))
    figures[f"first paint (aim {LIMITS['paint']:g} s)"] = told(paints)
    with page_of(made, address) as page:
        page.goto(address)
        clicked = ["[data-test=try]", "[data-test=stage]", "figure img", "^(done|failed)"]
        name = "I-FGSM, 10 steps, detector, purifier, 32 x 32"
        figures[f"{name}, the first"] = told([page.evaluate(CLICKED, clicked)[1]])
        again = [page.evaluate(CLICKED, clicked) for _ in range(AGAIN)]
        words = str(page.inner_text("[data-test=stage]"))
        if not words.startswith("done"):
            raise RuntimeError(f"try: expected it to be done, got {words}")
        figures[f"{name} (aim {LIMITS['try']:g} s)"] = told([drawn for _, drawn in again])


def tried_without_browser(address: str, figures: dict[str, Any]) -> None:
    """The same without what a browser does of it: the page's requests, the work in this process."""
    figures["first page, request"] = told([requested(address) for _ in range(AGAIN)])
    form, subjects = Form(Path.cwd()), Subjects()

    def work() -> float:
        begun = time.perf_counter()
        asked = Preview(
            form.content(),
            form.data,
            form.picture(),
            calibration=form.calibration(),
            subjects=subjects,
        )
        asked.run(Told(), threading.Event())
        return time.perf_counter() - begun

    work()
    name = "I-FGSM, 10 steps, detector, purifier, 32 x 32, without a browser"
    figures[f"{name} (aim {LIMITS['try']:g} s)"] = told([work() for _ in range(AGAIN)])


def browsed(made: Any, address: str, count: int, figures: dict[str, Any]) -> None:
    """Pages of a store: requested by address, and turned in the browser where there is one."""
    run = f"{address}/browse/browsed"
    aim = f"(aim {LIMITS['page']:g} s)"
    figures[f"{count:,}: the run's page, first request"] = f"{requested(run):.3f} s"
    for name, view in VIEWS.items():
        requested(f"{run}?{urlencode(view)}")
        pages = range(2, 2 + AGAIN)
        seconds = [requested(f"{run}?{urlencode({**view, 'page': page})}") for page in pages]
        figures[f"{count:,}: page by its address, {name} {aim}"] = told(seconds)
        if made is None:
            continue
        with page_of(made, address) as page:
            page.goto(f"{run}?{urlencode(view)}")
            page.locator(".br-look").first.wait_for()
            clicked = ["#br-next", "[data-test=position]", ".br-look img", ""]
            turned = [page.evaluate(CLICKED, clicked) for _ in range(AGAIN)]
            figures[f"{count:,}: next page, {name}, told {aim}"] = told([one for one, _ in turned])
            figures[f"{count:,}: next page, {name}, drawn"] = told([one for _, one in turned])


@contextmanager
def looking() -> Iterator[Any]:
    """Chromium, or None where there is none."""
    if CHROMIUM is None:
        yield None
        return
    with browser() as made:
        yield made


def run(images: int) -> dict[str, Any]:
    """Figures of the page that tries, and of stores up to the number of images given."""
    figures: dict[str, Any] = {"load of the machine": " ".join(map(str, os.getloadavg()))}
    with tempfile.TemporaryDirectory() as temporary, looking() as made:
        folder = Path(temporary)
        for place, count in enumerate([size for size in SIZES if size <= images] or [images]):
            with started(store_of(count, folder), folder, figures) as address:
                if place == 0 and made is not None:
                    tried(made, address, figures)
                elif place == 0:
                    tried_without_browser(address, figures)
                browsed(made, address, count, figures)
    figures["load of the machine afterwards"] = " ".join(map(str, os.getloadavg()))
    return figures
