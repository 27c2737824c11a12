"""The best configuration of a campaign, and how much better than the others it is."""

import json
from dataclasses import dataclass

import pandas as pd

from tuner.analysis.headline import Headline, fresh_medians, headline, relatives
from tuner.analysis.study_frames import ranked_results
from tuner.design.hyperparameters import Constant, Hyperparameter, Range, Value
from tuner.records import Checkpoint, TrialRecord
from tuner.report.material import Material, StudyMaterial
from tuner.report.wording import domain_words, readable, scale_words
from tuner.shown import counted, word


@dataclass(frozen=True, slots=True)
class ShownValue:
    """One value of the configuration. position: in percent of the searched range, None where it has no place there."""

    name: str
    value: str
    searched: str
    position: float | None = None


@dataclass(frozen=True, slots=True)
class BestConfiguration:
    """The best configuration by its selected run: the trial whose checkpoint is exported.

    headline: the value of the configuration, and what it rests on. doubts: what the records do not show, in sentences.
    """

    study: StudyMaterial
    record: TrialRecord
    headline: Headline
    step: int
    last_value: float
    checkpoint: Checkpoint | None
    settings: tuple[ShownValue, ...]
    doubts: tuple[str, ...]

    @property
    def value(self) -> float:
        """The median of fresh seeds; without fresh seeds the value of the selected run."""
        return self.headline.value

    @property
    def behind(self) -> str:
        """What the value is, and the value of the selected run."""
        return self.headline.words_behind

    @property
    def exact_point(self) -> str:
        """The configuration as JSON, with all digits."""
        return json.dumps(dict(self.record.point.values_by_name))

    @property
    def reproduce(self) -> str:
        """The command that trains this trial again and compares the bits (B45)."""
        study = self.study
        return f"tuner replay {study_file(study)} --round {study.study.round} --trial {self.record.number}"


def winner_of(material: Material) -> BestConfiguration | None:
    """The best configuration of the newest round with a complete trial (A12); None where no round has one.

    A control of a stage is never the result.
    """
    study = next((study for study in reversed(material.main_rounds) if len(study.frames.selectable)), None)
    if study is None:
        return None
    found = headline(study.frames, relatives(material.ledger, material.campaign, study.study))
    return None if found is None else _winner(material, study, found)


def _winner(material: Material, study: StudyMaterial, found: Headline) -> BestConfiguration:
    ranked = ranked_results(study.frames)
    best = ranked[ranked["trial"] == found.trial].iloc[0]
    record = material.record(study, found.trial)
    step = int(best["best_step"])
    checkpoint = next((one for one in record.checkpoints if one.kind == "best" and one.step == step), None)
    return BestConfiguration(
        study=study,
        record=record,
        headline=found,
        step=step,
        last_value=float(best["last_value"]),
        checkpoint=checkpoint,
        settings=_settings(study, record),
        doubts=(
            *_inexact(study, record),
            *_stopped(study, record),
            *(_fresh_rivals(study, found, ranked) if found.fresh else _rivals(ranked)),
            *_unfinished(study),
            *better_elsewhere(material, study, found.selected_value),
        ),
    )


def _inexact(study: StudyMaterial, record: TrialRecord) -> tuple[str, ...]:
    if record.exact:
        return ()
    return (f"It is not exact: it was {study.frames.promises.why_inexact}, so a replay may give other bits.",)


def _stopped(study: StudyMaterial, record: TrialRecord) -> tuple[str, ...]:
    if not record.stopped_early:
        return ()
    patience = study.study.patience_steps
    return (
        f"It stopped early, at step {record.step:,} of {study.study.budget.max_train_steps:,}"
        f"{f' (patience_steps={patience:,})' if patience else ''}: what more steps would have given is not known.",
    )


def _settings(study: StudyMaterial, record: TrialRecord) -> tuple[ShownValue, ...]:
    declared = {hyperparameter.name: hyperparameter for hyperparameter in study.study.hyperparameters}
    constants = dict(study.study.fixed)
    return tuple(
        _searched(declared[name], value)
        if name in declared
        else ShownValue(name, readable(value), _fixed(constants, name))
        for name, value in record.point.values_by_name
    )


def _fixed(constants: dict[str, Constant], name: str) -> str:
    return "fixed" if name in constants else "not searched"


def _searched(hyperparameter: Hyperparameter, value: Value) -> ShownValue:
    domain = hyperparameter.domain
    position = None
    if isinstance(domain, Range) and isinstance(value, int | float):
        position = 100 * min(1.0, max(0.0, domain.unit_of(value)))
    searched = f"{domain_words(domain)}, {scale_words(domain)}" if isinstance(domain, Range) else domain_words(domain)
    return ShownValue(hyperparameter.name, readable(value), searched, position)


def _rivals(ranked: pd.DataFrame) -> list[str]:
    """How close the next trials come: the best of many is lucky as well as good."""
    best, others = ranked["best_value"].iloc[0], ranked.iloc[1:]
    if others.empty:
        return ["It is the only complete trial."]
    ties = others[others["best_value"] == best]
    if len(ties):
        named = ", ".join(str(trial) for trial in ties["trial"].head(5))
        return [
            f"{counted(len(ties), 'other trial')} reached the same value ({named}); the smallest number wins a tie."
        ]
    second = others.iloc[0]
    return [
        f"Best of {len(ranked)} complete trials. The next one, trial {second['trial']}, reached "
        f"{readable(second['best_value'])}. One seed each cannot tell the difference from trial variance."
    ]


def _fresh_rivals(study: StudyMaterial, found: Headline, ranked: pd.DataFrame) -> list[str]:
    """The next configuration with fresh seeds; and a better trial with one seed, and the command for both."""
    told, objective = [], study.study.objective
    others = [(trial, *known) for trial, known in fresh_medians(study.frames).items() if trial != found.trial]
    for trial, value, count in others[:1]:
        words = (
            f"a median of {readable(value)} over {count} fresh seeds" if count > 1 else f"{readable(value)} with one"
        )
        told.append(f"The next configuration with fresh seeds, that of trial {trial}, had {words}.")
    first = ranked.iloc[0]
    if int(first["trial"]) not in {found.trial, *(trial for trial, *_ in others)} and objective.better(
        float(first["best_value"]), found.value
    ):
        place = f"{study.study.name}/{first['trial']} --baseline {study.study.name}/{found.trial}"
        told.append(
            f"Trial {first['trial']} reached {readable(first['best_value'])} with one seed, selected; fresh seeds of "
            f"both decide: tuner adopt {study_file(study)} --candidate {place}"
        )
    return told


def _unfinished(study: StudyMaterial) -> list[str]:
    left = int(study.frames.trials["state"].isin(["waiting", "running"]).sum())
    return [f"{counted(left, 'trial')} of {study.study.name} not finished yet: this may change."] if left else []


def better_elsewhere(material: Material, study: StudyMaterial, value: float) -> tuple[str, ...]:
    """Better values in other rounds, a sentence each: the newest round names the winner and hides no older one."""
    objective = study.study.objective
    found = []
    for other in material.rounds:
        comparable = other is not study and other.study.objective == objective
        ranked = ranked_results(other.frames) if comparable else pd.DataFrame()
        if len(ranked) and objective.better(float(ranked["best_value"].iloc[0]), value):
            selected = study.promoted and len(ranked) > 1
            scratch = ", trained from scratch," if other.study.start and not study.study.start else ""
            found.append(
                f"Trial {ranked['trial'].iloc[0]} of {other.study.name}{scratch} reached "
                f"{readable(ranked['best_value'].iloc[0])}, which is better"
                + (
                    f", but as the best of {len(ranked)} trials of one seed each (winner's curse, B32)." * selected
                    or "."
                )
            )
    return tuple(found)


def study_file(study: StudyMaterial) -> str:
    """The study file as a word of a command."""
    return next((word(one.study_file) for one in reversed(study.launches) if one.study_file), "STUDY_FILE")
