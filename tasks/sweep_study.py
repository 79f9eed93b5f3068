"""The search itself: an Optuna study that survives being killed, asked and told trial by trial.

The study lies in SQLite: whatever is told is one transaction, a transaction that a kill cuts short
is rolled back by the next reader, and its locks end with the process. (Optuna's journal file has
neither: a line cut short makes the next one unreadable, and the lock of a killed writer stays.)

A trial draws from a sampler of its own, seeded by the search's seed and by how many were drawn
before, so what a study proposes does not depend on how often it was interrupted.
"""

from __future__ import annotations

import contextlib
import math
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from storage.errors import DamagedChunk
from storage.files import as_store_error
from storage.ledger import digest_of
from tasks.errors import SpecError
from tasks.leaderboard import Standing, standing_of
from tasks.sweep_figures import value_of, violation
from tasks.sweep_specs import Candidate, RangeSpec, SearchSpec, Value, lower_is_better, text_of

if TYPE_CHECKING:
    import optuna

POPULATION = 20
"""Trials a generation of NSGA-II."""
STUBBORN, EXHAUSTED = 2, 100
"""Purifiers in a row that were tried before, after which the next is drawn at random, and after
which the space counts as exhausted."""
RANDOM = 10
"""Trials that TPE draws at random first; twice the templates, where that is more."""
ASKED, AGAIN, OTHERS, RECORD, TWIN = "asked", "again", "others", "record", "twin"
"""Attributes of a trial: its parameters, the interrupted trial that it repeats, chunks that were
there before it, what came of it, and that its purifier was tried before."""


@dataclass(frozen=True)
class Asked:
    """A trial that is to be done.

    Args:
        candidate: what is to be tried.
        trial: of optuna.
    """

    candidate: Candidate
    trial: optuna.Trial

    @property
    def others(self) -> list[str] | None:
        """Chunks of the trial that were there when it was first begun; None if never noted."""
        found: list[str] | None = self.trial.user_attrs.get(OTHERS)
        return found

    def note_others(self, chunks: list[str]) -> None:
        """Note which chunks were there before, also for the next attempt after a kill."""
        self.trial.set_user_attr(OTHERS, chunks)


@dataclass(frozen=True)
class Tried:
    """A trial that is finished.

    Args:
        candidate: what was tried.
        standing: its figures.
    """

    candidate: Candidate
    standing: Standing


def require_optuna() -> ModuleType:
    """The package optuna, told to be quiet.

    Raises:
        SpecError: where it is not installed.
    """
    try:
        import optuna
    except ImportError as error:
        raise SpecError(
            f"sweep: needs the package optuna: {error}; pip install 'image-defender[sweep]'"
        ) from None
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna


class Study:
    """Finished trials, and the next one; made by :func:`open_study`.

    ``tried`` holds the finished trials in order, all of different purifiers.

    Args:
        study: of optuna; trials that a kill left running are queued anew.
        search: space, sampler and seed.
        objectives: names, in the order of the study's directions.
    """

    def __init__(
        self, study: optuna.Study, search: SearchSpec, objectives: tuple[str, ...]
    ) -> None:
        import optuna

        self.study = study
        self.search = search
        self.objectives = objectives
        self.tried: list[Tried] = []
        self._drawn = self._repeats = 0
        self._repeat_interrupted()
        for trial in study.get_trials(deepcopy=False):
            record = trial.user_attrs.get(RECORD)
            complete = trial.state == optuna.trial.TrialState.COMPLETE
            if TWIN in trial.user_attrs:
                self._note_twin()
            elif record is not None and (complete or not record["finite"]):
                self._note(record)

    def left(self, trials: int) -> int:
        """How many trials are left to be done, for so many in all; none of an exhausted space."""
        if self._repeats >= EXHAUSTED or len(self.tried) >= self.search.size:
            return 0
        return max(0, trials - len(self.tried))

    def ask(self) -> Asked | None:
        """The next trial; one that was interrupted comes first, with the same parameters.

        What was tried before is drawn anew, until the space counts as exhausted: then None.
        """
        import optuna

        known = {one.candidate.text for one in self.tried}
        while self._repeats < EXHAUSTED:
            self.study.sampler = self._sampler()
            trial = self.study.ask()
            candidate = self._candidate(trial)
            trial.set_user_attr(ASKED, trial.params)
            if candidate.text not in known:
                return Asked(candidate, trial)
            trial.set_user_attr(TWIN, candidate.text)
            self.study.tell(trial, state=optuna.trial.TrialState.FAIL)
            self._note_twin()
        return None

    def tell(self, asked: Asked, standing: Standing) -> Tried:
        """Note what came of a trial: from now on it is finished.

        A trial without a finite value of every objective and constraint is finished, too, but
        tells the sampler nothing.
        """
        import optuna

        values = [value_of(standing, name) for name in self.objectives]
        misses = {k: violation(standing, k, v) for k, v in self.search.constraints.items()}
        finite = all(map(math.isfinite, [*values, *misses.values()]))
        record = {
            "template": asked.candidate.template,
            "parameters": dict(asked.candidate.parameters),
            "standing": standing.as_dict(),
            "finite": finite,
        }
        asked.trial.set_user_attr(RECORD, record)
        if finite:
            for name, miss in misses.items():
                asked.trial.set_constraint(name, miss)
            self.study.tell(asked.trial, values)
        else:
            self.study.tell(asked.trial, state=optuna.trial.TrialState.FAIL)
        return self._note(record)

    def _note(self, record: dict[str, Any]) -> Tried:
        candidate = Candidate(record["template"], record["parameters"])
        tried = Tried(candidate, standing_of(record["standing"]))
        self.tried.append(tried)
        self._drawn, self._repeats = self._drawn + 1, 0
        return tried

    def _note_twin(self) -> None:
        self._drawn, self._repeats = self._drawn + 1, self._repeats + 1

    def _repeat_interrupted(self) -> None:
        """Queue what was running when the process was killed, and mark it as failed.

        In this order: killed in between, the second attempt finds it queued already.
        """
        import optuna

        trials = self.study.get_trials(deepcopy=False)
        queued = {trial.user_attrs.get(AGAIN) for trial in trials}
        for trial in trials:
            if trial.state != optuna.trial.TrialState.RUNNING:
                continue
            told = {k: v for k, v in trial.user_attrs.items() if k in (ASKED, OTHERS)}
            without = not trial.user_attrs.get(RECORD, {}).get("finite", True)
            finished = without or TWIN in trial.user_attrs
            if ASKED in told and trial.number not in queued and not finished:
                self.study.enqueue_trial(told[ASKED], {**told, AGAIN: trial.number})
            self.study.tell(trial.number, state=optuna.trial.TrialState.FAIL)

    def _sampler(self) -> optuna.samplers.BaseSampler:
        from optuna import samplers

        seed = int(digest_of(["sweep", self.search.seed, self._drawn])[:8], 16)
        if self.search.sampler == "random" or self._repeats >= STUBBORN:
            return samplers.RandomSampler(seed=seed)
        if self.search.sampler == "nsga2":
            return samplers.NSGAIISampler(seed=seed, population_size=POPULATION)
        return samplers.TPESampler(
            seed=seed,
            n_startup_trials=max(RANDOM, 2 * len(self.search.space)),
            multivariate=False,
            constant_liar=False,
        )

    def _candidate(self, trial: optuna.Trial) -> Candidate:
        """Draw a template and its parameters.

        NSGA-II crosses only what all trials have in common, so there the parameters of all
        templates are drawn.
        """
        space = self.search.space
        template = trial.suggest_categorical("template", space) if len(space) > 1 else space[0]
        drawn = {}
        for one in space if self.search.sampler == "nsga2" else (template,):
            values = {
                name: _suggest(trial, f"{name} of {one}", values)
                for name, values in self.search.ranges_of(one).items()
            }
            if one == template:
                drawn = values
        return Candidate(template, drawn)


def _suggest(trial: optuna.Trial, name: str, values: RangeSpec) -> Value:
    if values.choices:
        by_text = {text_of(one): one for one in values.choices}
        return by_text[trial.suggest_categorical(name, list(by_text))]
    low, high = values.bounds
    if values.whole:
        step = int(values.step or 1)
        return trial.suggest_int(name, int(low), int(high), step=step, log=values.log)
    return values.number(trial.suggest_float(name, low, high, step=values.step, log=values.log))


@contextlib.contextmanager
def open_study(
    path: Path, name: str, search: SearchSpec, objectives: tuple[str, ...]
) -> Iterator[Study]:
    """Open a study, or begin it; one process at a time.

    Args:
        path: the SQLite file.
        name: digest of everything that values of the study depend on; a file holds several.
        search: space, sampler and seed.
        objectives: what is searched for.

    Raises:
        SpecError: without the package optuna.
        DamagedChunk: where the file cannot be read.
        StoreError: where it cannot be written.
    """
    optuna = require_optuna()
    from sqlalchemy.engine import URL
    from sqlalchemy.exc import SQLAlchemyError

    directions = ["minimize" if lower_is_better(one) else "maximize" for one in objectives]
    url = URL.create("sqlite", database=str(path)).render_as_string(hide_password=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    trouble = (SQLAlchemyError, optuna.exceptions.StorageInternalError)
    storage = None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            storage = optuna.storages.RDBStorage(url)
        study = optuna.create_study(
            storage=storage, study_name=name, directions=directions, load_if_exists=True
        )
        opened = Study(study, search, objectives)
    except trouble as error:
        reason = " ".join(str(error).split())
        raise DamagedChunk(
            f"{path}: expected the study of a sweep: {reason}; remove the file to begin anew, the "
            "chunks in the store are kept"
        ) from None
    try:
        yield opened
    except trouble as error:
        raise as_store_error(OSError(0, " ".join(str(error).split())), path) from error
    finally:
        storage.remove_session()
        storage.engine.dispose()
