"""One picture at a time: attacked, looked at by a detector, purified, scored."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nicegui import events, ui

from flows.app.frame import framed
from flows.app.try_controls import Controls
from flows.app.try_form import DROPPED, Form
from flows.app.try_panes import Panes
from flows.app.try_report import report
from flows.app.worker import Worker, explain
from tasks.preview import Preview, Subjects

if TYPE_CHECKING:
    from flows.app.server import Settings

POLL = 0.05
"""Seconds between two looks at how far the work is."""
SHOW_RESULTS = "if (innerWidth < 760) document.querySelector('.results').scrollIntoView()"
"""On a narrow screen the results are below everything that can be set."""
KEYS = "R try, Esc stop, N next, + and - zoom, 0 whole picture, D light or dark"


def add(settings: Settings) -> None:
    """Add the page to the app."""

    @ui.page("/")
    def try_one() -> None:
        with framed("Try"):
            Trying(settings)


class Trying:
    """The page of one user."""

    def __init__(self, settings: Settings) -> None:
        self.form = Form(settings.data)
        self.worker = Worker()
        self.subjects = Subjects()
        self.preview: Preview | None = None
        with ui.element("div").classes("try"):
            with ui.element("aside").classes("controls").props('aria-label="What to try"'):
                self._buttons()
                self.controls = Controls(self.form, settings.largest, self.complain, self._changed)
            with ui.element("section").classes("results").props('aria-label="Results"'):
                self.problem = ui.label().classes("problem").props('role="alert"')
                self.problem.visible = False
                self.panes = Panes()
                ui.label(KEYS).classes("muted small keys")
        ui.keyboard(on_key=self._key)
        self.timer = ui.timer(POLL, self._look, active=False)
        ui.context.client.on_delete(self._gone)

    def _buttons(self) -> None:
        with ui.element("div").classes("buttons"):
            self.go = ui.button("Try", on_click=self.start).props('unelevated data-test="try"')
            self.halt = ui.button("Stop", on_click=self.stop).props('outline data-test="stop"')
            self.following = ui.button("Next", on_click=self.next).props('outline data-test="next"')
            with ui.button(icon="download").props('flat aria-label="Save"'), ui.menu():
                ui.menu_item("Report (HTML)", self.save_report).props('data-test="save-report"')
                ui.menu_item("Specification (YAML)", self.save_spec).props('data-test="save-spec"')
        with ui.element("div").classes("progress").props('role="status" aria-live="polite"'):
            self.stage = ui.label("ready").props('data-test="stage"')
            self.bar = ui.linear_progress(0, show_value=False).props("instant-feedback")
            self.bar.visible = False
        self.halt.disable()

    def start(self) -> None:
        """Try the picture with what the form says; what was going on ends."""
        try:
            content = self.form.content()
        except Exception as error:
            self.complain(explain(error))
            return
        self._clear()
        form, subjects = self.form, self.subjects

        def make() -> Preview:
            # a data set may take long to list: in the thread of the job
            made = Preview(
                content,
                form.data,
                form.picture(),
                other=form.other(),
                calibration=form.calibration(),
                subjects=subjects,
            )
            self.preview = made
            return made

        self.stage.text = "begins"
        self.bar.visible = True
        self.bar.value = 0
        self.halt.enable()
        self.worker.start(make)
        self.timer.activate()

    def stop(self) -> None:
        """End what is going on, at once."""
        if self.worker.stop():
            self._rest("stopped")

    def next(self) -> None:
        """Try the next picture of the source."""
        if self.form.source == DROPPED:
            self.complain("next: expected a source of several pictures, a dropped one is alone")
            return
        self.controls.next()
        self.start()

    def complain(self, text: str) -> None:
        """Show what is wrong, in a sentence."""
        self.problem.text = text
        self.problem.visible = True

    def _changed(self) -> None:
        self.problem.visible = False

    def _clear(self) -> None:
        self.problem.visible = False
        self.panes.clear()

    def _rest(self, word: str) -> None:
        self.timer.deactivate()
        self.stage.text = word
        self.bar.visible = False
        self.halt.disable()

    def _look(self) -> None:
        job = self.worker.job
        if job is None:
            return
        for kind, given in job.news():
            self._hear(kind, given)

    def _hear(self, kind: str, given: tuple[Any, ...]) -> None:
        if kind == "stage":
            name, share = given
            self.stage.text = name if share is None else f"{name} {100 * share:.0f} %"
            self.bar.props(remove="indeterminate") if share is not None else self.bar.props(
                "indeterminate"
            )
            self.bar.value = share or 0
        elif kind == "pane":
            self.panes.add(given[0])
        elif kind == "suspicion":
            self.panes.suspect(given[0])
        elif kind == "took":
            self.panes.took(*given)
        elif kind == "failed":
            self.complain(given[0])
        elif kind == "ended":
            self.worker.stop()
            seconds = sum(self.panes.seconds.values())
            ui.run_javascript(SHOW_RESULTS)
            self._rest("failed" if self.problem.visible else f"done in {seconds:.2f} s")

    def save_report(self) -> None:
        """Give the browser everything that is shown, as one page."""
        if not self.panes.shown or self.preview is None:
            self.complain("report: expected a picture that was tried, there is none yet")
            return
        text = report(self.preview.picture.name, self.preview.as_yaml(), self.panes)
        ui.download.content(text.encode(), "image-defender-try.html", "text/html")

    def save_spec(self) -> None:
        """Give the browser the specification that does the same to a whole dataset."""
        try:
            made = Preview(self.form.content(), self.form.data, self.form.picture())
        except Exception as error:
            self.complain(explain(error))
            return
        ui.download.content(made.as_yaml().encode(), f"{made.spec.name}.yaml", "text/yaml")

    def _key(self, event: events.KeyEventArguments) -> None:
        if not event.action.keydown or event.modifiers.ctrl or event.modifiers.alt:
            return
        name = str(event.key.name).lower()
        actions = {"r": self.start, "escape": self.stop, "n": self.next}
        if name in actions and not (event.action.repeat):
            actions[name]()

    def _gone(self) -> None:
        self.worker.stop()
        self.panes.forget()
