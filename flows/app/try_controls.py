"""The left side of the page: what to try, with a control for every parameter."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from nicegui import events, run, ui

from defender.scaling.libraries import ALGORITHMS
from flows.app.try_form import DATASET, DROPPED, Algorithm, Form
from flows.app.worker import explain
from tasks import app_choices
from tasks.app_choices import NONE, Control
from tasks.specs import DatasetSpec
from tasks.try_pictures import Picture, decoded

NAMES = {"attack": "Attack", "detector": "Detector", "purifier": "Purifier"}


class Controls:
    """The fields of a form on the page.

    Args:
        form: what they set.
        largest: bytes of a dropped picture, at most.
        complain: shows a sentence about what is wrong.
        changed: called after the picture was changed.
    """

    def __init__(
        self,
        form: Form,
        largest: int,
        complain: Callable[[str], None],
        changed: Callable[[], None],
    ) -> None:
        self.form = form
        self.largest = largest
        self.complain = complain
        self.changed = changed
        self._families()
        self._picture()
        self._subject()
        self._algorithms()

    def _families(self) -> None:
        titles = {name: family.title for name, family in self.form.families.items()}
        chosen = ui.select(
            titles, value=self.form.family.name, label="What is attacked", on_change=self._family
        )
        chosen.classes("wide").props('data-test="family"')

    def _family(self, event: events.ValueChangeEventArguments[Any]) -> None:
        self.form.choose_family(event.value)
        for part in (self._picture, self._subject, self._algorithms):
            part.refresh()
        self.changed()

    @ui.refreshable_method
    def _picture(self) -> None:
        form = self.form
        with ui.element("fieldset"):
            ui.html("<legend>Picture</legend>", sanitize=False)
            ui.select(form.sources, value=form.source, on_change=self._source).classes(
                "wide"
            ).props('data-test="source" aria-label="Where the picture comes from"')
            if form.source == DATASET:
                path = ui.input("below the data folder, or cifar10", value=form.path)
                path.classes("wide").props('data-test="path"')
                path.on("change", lambda: self._path(path.value))
            if form.source not in (DROPPED,):
                with ui.row().classes("tight"):
                    number = ui.number("number", value=form.place, min=0, format="%d")
                    number.props('data-test="place"').on_value_change(
                        lambda event: self._place(event.value)
                    )
            self._upload("Drop a picture here, or choose one", self._dropped, "picture")
            if form.dropped is not None and form.source == DROPPED:
                ui.label(form.dropped.name).classes("muted small")
            if form.needs_second:
                face = form.family.name == "face"
                what = "the person to be taken for" if face else "the picture to be hidden"
                self._upload(f"Second picture: {what}", self._second, "second")
                told = "another one of the same source" if form.second is None else None
                ui.label(told or str(form.second.name if form.second else "")).classes(
                    "muted small"
                )
            side = ui.number("work at side (pixels; 0: as it is)", value=form.side, min=0)
            side.classes("wide").props('data-test="side"')
            side.on_value_change(lambda event: self._set("side", int(event.value or 0)))

    def _upload(self, label: str, handler: Callable[..., Any], name: str) -> None:
        ui.upload(
            label=label,
            auto_upload=True,
            on_upload=handler,
            on_rejected=lambda: self.complain(
                f"expected a picture, such as PNG or JPEG, of at most {self.largest >> 20} MB"
            ),
            max_file_size=self.largest,
        ).classes("drop").props(
            f'flat data-test="{name}" accept=".png,.jpg,.jpeg,.bmp,.gif,.pgm,'
            '.ppm,.tif,.tiff,.webp,image/*"'
        )

    async def _received(self, event: events.UploadEventArguments) -> Picture | None:
        data = await event.file.read()
        picture = Picture(event.file.name.replace("\\", "/").rpartition("/")[2], data)
        try:
            await run.io_bound(decoded, picture, DatasetSpec(kind="folder"))
        except Exception as error:
            self.complain(explain(error))
            return None
        return picture

    async def _dropped(self, event: events.UploadEventArguments) -> None:
        picture = await self._received(event)
        if picture is not None:
            self.form.dropped, self.form.source = picture, DROPPED
            self._picture.refresh()
            self.changed()

    async def _second(self, event: events.UploadEventArguments) -> None:
        picture = await self._received(event)
        if picture is not None:
            self.form.second = picture
            self._picture.refresh()

    def _source(self, event: events.ValueChangeEventArguments[Any]) -> None:
        self.form.source, self.form.place = event.value, 0
        self._picture.refresh()
        self.changed()

    def _path(self, path: str) -> None:
        self.form.path, self.form.place = path, 0

    def _place(self, value: float | None) -> None:
        self.form.place = max(0, int(value or 0))

    def next(self) -> None:
        """Take the next picture of the source."""
        self.form.place += 1
        self._picture.refresh()

    @ui.refreshable_method
    def _subject(self) -> None:
        form, name = self.form, self.form.family.name
        with ui.element("fieldset"):
            ui.html("<legend>System</legend>", sanitize=False)
            if name == "quality":
                self._select("quality metric", list(app_choices.quality_metrics()), "metric")
                return
            if name == "face":
                self._select("encoder", list(app_choices.encoders()), "encoder")
                self._text("weights: a file below the data folder", "weights")
                self._number("share of the side that the face fills", "scale", 0.05, 1.0, 0.05)
                self._number("accepted from similarity", "threshold", 0.0, 1.0, 0.01)
                return
            names = list(app_choices.models())
            if app_choices.has_torchvision():
                names.append("torchvision")
            if name == "scaling":
                names.insert(0, NONE)
            chosen = ui.select(names, value=form.model, label="model", on_change=self._model)
            chosen.classes("wide").props('data-test="model"')
            if form.model == "torchvision":
                self._text("architecture, such as resnet18", "architecture")
                self._text("weights: a file below the data folder", "weights")
            if name == "scaling":
                library = ui.select(
                    list(ALGORITHMS),
                    value=form.library,
                    label="resized by",
                    on_change=self._library,
                )
                library.classes("wide")
                self._select("algorithm", list(ALGORITHMS[form.library]), "algorithm")
                self._number("side that the model sees (pixels)", "target", 8, 512, 1)

    def _library(self, event: events.ValueChangeEventArguments[Any]) -> None:
        self.form.library = event.value
        self.form.algorithm = "linear"
        self._subject.refresh()

    def _model(self, event: events.ValueChangeEventArguments[Any]) -> None:
        self.form.model = event.value
        self.form.side = self.form.usual_side
        self._subject.refresh()
        self._picture.refresh()

    @ui.refreshable_method
    def _algorithms(self) -> None:
        family = self.form.family
        for one, names in (
            (self.form.attack, family.attacks),
            (self.form.detector, family.detectors),
            (self.form.purifier, family.purifiers),
        ):
            if names != (NONE,):
                _AlgorithmPart(one, list(names))

    def _select(self, label: str, options: list[str], field: str) -> None:
        ui.select(
            options,
            value=getattr(self.form, field),
            label=label,
            on_change=lambda event: self._set(field, event.value),
        ).classes("wide").props(f'data-test="{field}"')

    def _text(self, label: str, field: str) -> None:
        made = ui.input(label, value=getattr(self.form, field)).classes("wide")
        made.props(f'data-test="{field}"')
        made.on_value_change(lambda event: self._set(field, event.value or ""))

    def _number(self, label: str, field: str, low: float, high: float, step: float) -> None:
        whole = isinstance(getattr(self.form, field), int)

        def read(event: events.ValueChangeEventArguments[Any]) -> None:
            if event.value is not None:
                self._set(field, int(event.value) if whole else float(event.value))

        made = ui.number(label, value=getattr(self.form, field), min=low, max=high, step=step)
        made.classes("wide").props(f'data-test="{field}"').on_value_change(read)

    def _set(self, field: str, value: Any) -> None:
        setattr(self.form, field, value)


class _AlgorithmPart:
    """An algorithm with its parameters."""

    def __init__(self, one: Algorithm, names: list[str]) -> None:
        self.one = one
        self.names = names
        self._show()

    @ui.refreshable_method
    def _show(self) -> None:
        one = self.one
        with ui.element("fieldset"):
            ui.html(f"<legend>{NAMES[one.what]}</legend>", sanitize=False)
            chosen = ui.select(self.names, value=one.name, on_change=self._choose)
            chosen.classes("wide").props(f'data-test="{one.what}" aria-label="{NAMES[one.what]}"')
            choice = one.choice
            if choice is None:
                return
            ui.label(choice.doc).classes("muted small")
            first, more = choice.controls[:3], choice.controls[3:]
            for control in first:
                self._control(control)
            if more:
                with ui.expansion("more").classes("wide"):
                    for control in more:
                        self._control(control)

    def _choose(self, event: events.ValueChangeEventArguments[Any]) -> None:
        self.one.choose(event.value)
        self._show.refresh()

    def _control(self, control: Control) -> None:
        name, value = control.name, self.one.values[control.name]
        test = f'data-test="{self.one.what}-{name}"'

        def keep(event: events.ValueChangeEventArguments[Any]) -> None:
            self.one.values[name] = event.value

        title = f"{name.replace('_', ' ')}" + (f" ({control.unit})" if control.unit else "")
        with ui.element("div").classes("control") as row:
            if control.kind == "switch":
                ui.switch(title, value=value, on_change=keep).props(test)
            elif control.kind == "choice":
                ui.select(list(control.choices), value=value, label=title, on_change=keep).classes(
                    "wide"
                ).props(test)
            elif control.kind in ("text", "numbers"):
                ui.input(title, value=str(value), on_change=keep).classes("wide").props(test)
            elif control.automatic:
                self._exact(control, title, value, keep).classes("wide").props(
                    f'{test} clearable stack-label placeholder="automatic"'
                )
            else:
                self._slider(control, title, value, test, keep)
        with row:
            ui.tooltip(control.doc)

    def _slider(
        self, control: Control, title: str, value: Any, test: str, keep: Callable[..., None]
    ) -> None:
        low = control.low if control.low is not None else -control.reach
        exact = self._exact(control, title, value, keep)
        exact.classes("exact").props(test)
        slider = ui.slider(
            min=low, max=max(control.reach, value), step=control.step, value=value
        ).props(f'aria-label="{title}"')
        slider.bind_value(exact, forward=lambda v: v, backward=lambda v: low if v is None else v)

    def _exact(
        self, control: Control, title: str, value: Any, keep: Callable[..., None]
    ) -> ui.number:
        return ui.number(
            title,
            value=value,
            min=control.low,
            max=control.high,
            step=control.step,
            on_change=keep,
        )
