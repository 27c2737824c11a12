"""The records of a campaign, to read in Python.

records = tuner.load("digits")
records.trials(round=1)         # a DataFrame
records.best_steps(round=1)     # a Finding
records.plot("axes", round=1)   # a matplotlib Figure
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from tuner.analysis.checklist import only_promoted, round_findings
from tuner.analysis.elsewhere import for_elsewhere
from tuner.analysis.finding import Finding
from tuner.analysis.frames import study_frames
from tuner.analysis.headline import FreshRun, Headline, headline, relatives
from tuner.analysis.questions.adoption import adoption_log, last_adopted
from tuner.analysis.questions.best_steps import best_steps_finding
from tuner.analysis.questions.boundary import boundary_findings
from tuner.analysis.questions.budget_curve import BudgetCurve, budget_curve
from tuner.analysis.questions.control import findings_of_controls
from tuner.analysis.questions.transfer import conclusions_frame
from tuner.analysis.round_frames import (
    campaign_name,
    main_rounds,
    recorded_study_file,
    round_frames,
    round_number,
    rounds_frames,
    rounds_started,
    row_of_trial,
)
from tuner.analysis.stability_records import StabilityRecords, stability_records
from tuner.analysis.stage_chain import start_of_trial
from tuner.analysis.study_frames import StudyFrames, table_in_html
from tuner.analysis.study_progress import in_words, standing
from tuner.analysis.sweep_records import SweepRecords, sweep_records
from tuner.design.campaign import Campaign
from tuner.design.hyperparameters import Value
from tuner.errors import InputError, StorageError
from tuner.plots.catalog import PLOTS
from tuner.plots.plot import BudgetCurvePlot, CampaignPlot, Drawn, Plot, RoundPlot, StabilityPlot, StudyPlot, SweepPlot
from tuner.records import Checkpoint, TrialRecord
from tuner.records.conclusions import Selected
from tuner.security import without_secrets
from tuner.shown import in_html, shown, word
from tuner.storage.engine import default_url
from tuner.storage.store import Ledger, open_ledger
from tuner.storage.studies import StudyRow

Asked = int | str | None  # the number of a round, the name of a study, or the last round
StudyName = str | Path | Campaign  # a campaign by its name or its study file, or as it was declared


@dataclass(frozen=True, slots=True, repr=False)
class Winner:
    """The best configuration of a study, and its selected run: record, best step, checkpoint, and last value.

    value: the median of the trainings with fresh seeds; without fresh seeds the value of the selected run, which is
    optimistic (`kind` tells which of the two). selected_value: the selected run's value at `step`. fresh: the trainings
    with fresh seeds. start: the weights of an earlier stage that the run started from; None where it started from the
    model's own initialization.
    """

    row: StudyRow
    record: TrialRecord
    value: float
    step: int
    last_value: float
    checkpoint: Checkpoint | None
    headline: Headline
    start: Selected | None = None

    @property
    def inherited_steps(self) -> int:
        """Updates behind the weights that the selected run started from; its own come on top."""
        return self.start.steps if self.start else 0

    @property
    def stopped_early(self) -> bool:
        """Whether the selected run ended before its budget, because its metric improved no more (`patience_steps`)."""
        return self.record.stopped_early

    @property
    def stopping_words(self) -> list[str]:
        """That the selected run stopped early, as a line; none of what trained its whole budget."""
        return [self.record.reason] if self.stopped_early else []

    @property
    def notes(self) -> dict[str, str]:
        """What the metadata of its exported weights say."""
        return {"stopped_early": self.record.reason} if self.stopped_early else {}

    @property
    def selected_value(self) -> float:
        """The best value of the selected run, whose weights `tuner.export_weights` writes."""
        return self.headline.selected_value

    @property
    def kind(self) -> str:
        """What `value` is: "median of fresh seeds" or "one seed"."""
        return self.headline.kind

    @property
    def fresh(self) -> tuple[FreshRun, ...]:
        """Trainings of this configuration with fresh seeds and this number of steps."""
        return self.headline.fresh

    @property
    def point(self) -> dict[str, Value]:
        """The values of the hyperparameters by name."""
        return dict(self.record.point)

    @property
    def start_words(self) -> list[str]:
        """Where the weights started, with own and inherited steps, as a line; none of what starts from nothing."""
        if self.start is None:
            return []
        own, inherited = self.step, self.inherited_steps
        return [
            f"started from {self.start.words}; {inherited:,} inherited steps and {own:,} of its own, "
            f"{inherited + own:,} in all"
        ]

    def __repr__(self) -> str:
        study = self.row.study
        values = [f"  {name} = {value!r}" for name, value in self.point.items()]
        values += [f"  {words}" for words in [*self.start_words, *self.stopping_words]]
        head = (
            f"trial {self.record.number} of {self.row.campaign} {study.name}: {study.objective.metric} "
            f"{self.headline.words}; best step {self.step:,} of {study.length_in_words}"
        )
        return "\n".join(map(shown, [head, *values]))


@dataclass(frozen=True, slots=True, repr=False)
class CampaignRecords:
    """The records of one campaign in a storage.

    Most methods take `round`: its number, or None for the last one. Where they are about one study, they also take
    `study`: the name of any study in `status()`. All raise StorageError where the records are missing.
    """

    name: str
    storage: str

    def __repr__(self) -> str:
        table = in_words(self.status()).map(lambda value: shown(value) if isinstance(value, str) else value)
        return (
            f"{shown(f'the records of {self.name} in {without_secrets(self.storage)}')}\n{table.to_string(index=False)}"
        )

    def _repr_html_(self) -> str:
        """The view in a notebook: the studies, and how many trials are in which state."""
        table = table_in_html(in_words(self.status()))
        return f"<div><b>{in_html(self.name)}</b>{table}</div>"

    def status(self) -> pd.DataFrame:
        """One row for each study: trials by state, budget, share of the steps that are done."""
        with self._ledger() as ledger:
            return standing(ledger, [self.name])

    def study_file(self) -> str | None:
        """The study file of the newest study that was launched from one, as the launch named it."""
        with self._ledger() as ledger:
            return recorded_study_file(ledger, self.name)

    def frames(self, round: Asked = None, *, study: str | None = None) -> StudyFrames:
        """Declaration, trials and curves of a round, or of the study with a name."""
        asked = _one_of(round, study)
        with self._ledger() as ledger:
            if isinstance(asked, str):
                return study_frames(ledger, self.name, asked)
            return round_frames(ledger, self.name, round_number(ledger, self.name, asked))

    def trials(self, round: Asked = None, *, study: str | None = None) -> pd.DataFrame:
        """One row for each trial: number, state, reason, values, steps, seed, one column a hyperparameter."""
        return self.frames(round, study=study).trials

    def best_steps(self, round: Asked = None, *, study: str | None = None) -> Finding:
        """Was max_train_steps right? (A13-A15)"""
        frames = self.frames(round, study=study)
        return for_elsewhere(frames, [best_steps_finding(frames)])[0]

    def boundaries(self, round: Asked = None) -> list[Finding]:
        """Was the range of each hyperparameter wide enough? One finding for each (B20).

        Without a number it is the last round that searched, because a round of chosen configurations has no ranges.
        """
        frames = self.searched(round)
        return for_elsewhere(frames, boundary_findings(frames))

    def searched(self, round: Asked = None) -> StudyFrames:
        """As `frames`; without a number the last round that searched, or the last round where none did."""
        if round is not None:
            return self.frames(round)
        with self._ledger() as ledger:
            for number in reversed(main_rounds(ledger, self.name)):
                frames = round_frames(ledger, self.name, number)
                if not only_promoted(frames):
                    return frames
        return self.frames(None)

    def check(self, round: int | None = None) -> list[Finding]:
        """Every question of the checklist, in the playbook's order; then whether this round confirms the one before."""
        return self.findings_about(self.frames(round))

    def findings_about(self, frames: StudyFrames) -> list[Finding]:
        """All findings about a round whose frames were read before; of a stage also what the controls of it show."""
        with self._ledger() as ledger:
            controls = findings_of_controls(ledger, self.name, frames.study.name)
            return [*round_findings(ledger, self.name, frames), *controls]

    def conclusions(self) -> pd.DataFrame:
        """What was concluded at which number of steps, and whether it still holds (A30, A45)."""
        with self._ledger() as ledger:
            return conclusions_frame(rounds_frames(ledger, self.name))

    def plot(self, name: str, round: Asked = None, *, study: str | None = None) -> Figure:
        """A plot by its name in `tuner plot`. Raises InputError for an unknown name, with the names there are."""
        return self.drawn(name, _one_of(round, study))[0]

    def drawn(self, name: str, round: Asked = None) -> Drawn:
        """The figure of a plot, and the frame whose numbers the figure shows."""
        plot = PLOTS.get(name)
        if isinstance(plot, StudyPlot):
            return plot.draw(self.frames(round))
        if isinstance(plot, CampaignPlot):
            return plot.draw(self._rounds() if round is None else [self.frames(round)])
        if isinstance(plot, RoundPlot):
            return plot.draw(*self._with_the_round_before(None if isinstance(round, str) else round))
        return self._drawn_of_campaign(plot)

    def _drawn_of_campaign(self, plot: Plot) -> Drawn:
        if isinstance(plot, SweepPlot):
            return plot.draw(self.sweep())
        if isinstance(plot, BudgetCurvePlot):
            return plot.draw(self.budget_curve())
        if isinstance(plot, StabilityPlot):
            return plot.draw(self.stability())
        raise TypeError(f"{type(plot).__name__} is no kind of plot that records can draw")

    def _rounds(self) -> list[StudyFrames]:
        """Every round that was started, oldest first. Raises StorageError without any."""
        with self._ledger() as ledger:
            round_number(ledger, self.name, None)
            return rounds_frames(ledger, self.name)

    def _with_the_round_before(self, round: int | None) -> tuple[StudyFrames, StudyFrames]:
        """A round and the one before it, oldest first. Raises StorageError for a first round."""
        with self._ledger() as ledger:
            number = round_number(ledger, self.name, round)
            main = main_rounds(ledger, self.name)
            earlier = [one for one in main if one < number] if number in main else []
            if not earlier:
                raise StorageError(f"round {number} of {self.name!r} has no round before it to be compared with")
            before, after = (round_frames(ledger, self.name, one) for one in (earlier[-1], number))
        return before, after

    def budget_curve(self) -> BudgetCurve:
        """The newest budget curve. Raises StorageError where none was trained."""
        with self._ledger() as ledger:
            return budget_curve(ledger, self.name)

    def stability(self) -> StabilityRecords:
        """The newest stability study. Raises StorageError where none was trained."""
        with self._ledger() as ledger:
            return stability_records(ledger, self.name)

    def sweep(self) -> SweepRecords:
        """The last sweep: its outcome and its trials. Raises StorageError where no sweep has ended."""
        with self._ledger() as ledger:
            records = sweep_records(ledger, self.name)
            elsewhere = records is None and rounds_started(ledger, self.name) and round_frames(ledger, self.name, 1)
        if elsewhere and elsewhere.study.source:
            raise StorageError(f"{self.name!r} was trained elsewhere, so it has no sweep for its step budget here")
        if records is None:
            file = word(self.study_file() or "STUDY_FILE")
            raise StorageError(f"no sweep of {self.name!r} has come to an end; run: tuner sweep {file}")
        return records

    def adoptions(self) -> pd.DataFrame:
        """All adoptions, oldest first: candidate, baseline, verdict, and the interval of the gain (B34)."""
        with self._ledger() as ledger:
            return adoption_log(ledger, self.name)

    def best(self, round: Asked = None, *, study: str | None = None) -> Winner:
        """The best configuration by the study's objective; by the medians of fresh seeds where some were trained.

        The smaller trial number wins a tie. Raises StorageError where no trial is complete.
        """
        round = _one_of(round, study)
        with self._ledger() as ledger:
            if isinstance(round, str):
                frames, row = study_frames(ledger, self.name, round), ledger.study(self.name, round)
                return _winner_of(ledger, frames, row, _best(ledger, frames, self.name))
            return _winner(ledger, self.name, round_number(ledger, self.name, round))

    def final(self) -> Winner:
        """What was adopted last; before any adoption the best of the last round. Raises StorageError without either."""
        with self._ledger() as ledger:
            adopted = last_adopted(ledger, self.name)
            if adopted is not None:
                frames, row = study_frames(ledger, self.name, adopted[0]), ledger.study(self.name, adopted[0])
                others = relatives(ledger, self.name, frames.study)
                found = headline(frames, others, adopted[1]) or _best(ledger, frames, self.name)
                return _winner_of(ledger, frames, row, found)
        return self.best()

    @contextmanager
    def _ledger(self) -> Iterator[Ledger]:
        with open_ledger(self.storage, create=False) as ledger:
            yield ledger


def load(study: StudyName, storage: str | None = None) -> CampaignRecords:
    """The records of a campaign: its trials, findings and plots.

    study: the campaign's name, the path of its study file, or the named `Campaign` itself. storage: a path or URL;
    None is TUNER_STORAGE, or runs/tuner.sqlite.

    Raises StorageError where the campaign was not launched.

    >>> records = tuner.load("tiny")
    >>> records.trials(round=1)["state"].tolist()
    ['complete', 'complete', 'complete', 'complete']
    >>> records.frames(study="round-1").study.budget.max_train_steps
    60
    """
    url = storage or default_url()
    name = study.name if isinstance(study, Campaign) else str(study)
    if not name:
        raise InputError("a campaign that is passed as an object needs a name: Campaign(..., name='digits')")
    with open_ledger(url, create=False) as ledger:
        return CampaignRecords(campaign_name(ledger, name), url)


def _one_of(round: Asked, study: str | None) -> Asked:
    """What a caller asked about. Raises InputError for a round and a study at once."""
    if study is not None and round is not None:
        raise InputError(f"round={round!r} and study={study!r} both say what to read; give one of them")
    return study if study is not None else round


def _winner(ledger: Ledger, campaign: str, number: int) -> Winner:
    frames = round_frames(ledger, campaign, number)
    best = _best(ledger, frames, campaign)
    return _winner_of(ledger, frames, row_of_trial(ledger, campaign, number, best.trial)[0], best)


def _winner_of(ledger: Ledger, frames: StudyFrames, row: StudyRow, found: Headline) -> Winner:
    best = frames.trials[frames.trials["trial"] == found.trial].iloc[0]
    record = ledger.trial(row.study_id, found.trial)
    step = int(best["best_step"])
    checkpoint = next((c for c in record.checkpoints if c.kind == "best" and c.step == step), None)
    start = start_of_trial(ledger, row, record)
    return Winner(row, record, found.value, step, float(best["last_value"]), checkpoint, found, start)


def _best(ledger: Ledger, frames: StudyFrames, campaign: str) -> Headline:
    """The value of the best configuration. Raises StorageError where no trial is complete."""
    found = headline(frames, relatives(ledger, campaign, frames.study))
    if found is not None:
        return found
    counts = ", ".join(f"{count} {state}" for state, count in frames.trials["state"].value_counts().items())
    silent = " with a finite " + frames.study.objective.metric if (frames.trials["state"] == "complete").any() else ""
    raise StorageError(
        f"{frames.study.name} of {campaign!r} has no complete trial{silent} yet ({counts or 'no trials'})"
        f"{'; --round says which other round is meant' if (frames.study.round or 0) > 1 else ''}"
    )
