"""Does starting from the weights of an earlier stage help, over training from scratch? (C5, D50)

The control of a stage is a round that starts from scratch. What was gained is claimed only for the steps at which both
were compared: equal in all, the inherited ones included, or equal in those that each trains itself. The best of many
trials of one seed each is lucky as well as good, so such an answer is weak; fresh seeds of both, by `tuner adopt`, make
it strong.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from tuner.analysis.finding import Finding, Question, Strength, Verdict, needing_action
from tuner.analysis.headline import Headline, headline, relatives
from tuner.analysis.noise import Array
from tuner.analysis.questions.adoption import REPLICATES, adoption_finding, contest_frames, is_adoption
from tuner.analysis.questions.boundary import boundary_findings
from tuner.analysis.questions.effort import SMALL, UNEQUAL
from tuner.analysis.questions.isolation import LEADS, MINIMUM_EACH, best_chances
from tuner.analysis.replicates import LEVEL, Noise, better_or_worse, contrast, replicate_spread
from tuner.analysis.round_frames import controls_started, main_rounds, round_frames, round_of, round_rows, row_of_trial
from tuner.analysis.stage_effort import StageEffort, effort_of
from tuner.analysis.study_frames import StudyFrames
from tuner.records.conclusions import Adoption
from tuner.storage.store import Ledger
from tuner.storage.studies import StudyRow

MORE_LOOKS = 1.25  # [P] times as many evaluations make the best of them better (D32)

QUESTION = Question(
    name="control",
    sentence="Does starting from the earlier stage help?",
    order=320,
    verdicts=(
        Verdict("helps", "fine", "Keep starting from the earlier stage."),
        Verdict(
            "no_gain",
            "told",
            "Train from scratch, which is simpler, unless the earlier stage is there for another reason.",
        ),
        Verdict("costs", "told", "Train from scratch, or start from other weights."),
        Verdict("inconclusive", "open", f"Complete at least {MINIMUM_EACH} trials of each (B15, B16)."),
    ),
    thresholds={"minimum_each": MINIMUM_EACH, "leads": LEADS, "level": LEVEL, "unequal": UNEQUAL},
    title="Does starting from the earlier stage help ({subject})?",
    rules=("C5", "B15", "B32", "D32", "D40", "D41", "D50"),
)
_WORDS = {
    "helps": "Starting from the earlier stage helps",
    "no_gain": "Starting from the earlier stage shows no clear gain",
    "costs": "Starting from the earlier stage costs",
    "inconclusive": "Whether starting from the earlier stage helps is open",
}


@dataclass(frozen=True, slots=True)
class ComparedRound:
    """A round of the comparison, with the steps behind each of its trials."""

    row: StudyRow
    frames: StudyFrames
    effort: StageEffort
    best: Headline | None

    @property
    def name(self) -> str:
        return self.frames.study.name

    @property
    def place(self) -> str:
        return f"{self.name}/{self.best.trial}" if self.best else ""

    @property
    def evaluations(self) -> int:
        return len(self.row.study.budget.evaluation_steps)

    @property
    def is_search(self) -> bool:
        return not self.row.study.lineage

    def values(self) -> Array:
        """Of the complete trials, less is better."""
        sign = self.frames.study.objective.sign
        return np.asarray(sign * self.frames.complete["best_value"].to_numpy(dtype=np.float64))


@dataclass(frozen=True, slots=True)
class Answer:
    """The verdict with what it rests on, in a sentence. efforts: the steps from the weights, and from scratch."""

    verdict: str
    because: str
    efforts: tuple[StageEffort, StageEffort]
    strength: Strength = "weak"


def control_findings(ledger: Ledger, campaign: str, number: int) -> list[Finding]:
    """What the control `number` shows; empty for a round that is no control."""
    before = [one for one in main_rounds(ledger, campaign) if one < number]
    if not before or not round_rows(ledger, campaign, number)[0].study.start:
        return []
    staged, scratch = (_side(ledger, campaign, one) for one in (before[-1], number))
    answer = _by_contest(ledger, campaign, staged, scratch) or _by_trials(staged, scratch)
    return [_finding(staged, scratch, answer)]


def findings_of_controls(ledger: Ledger, campaign: str, study: str) -> list[Finding]:
    """What the controls show that were compared with a round, by the name of its study."""
    place = round_of(study)
    if place is None:
        return []
    main = main_rounds(ledger, campaign)
    mine = [one for one in controls_started(ledger, campaign) if [n for n in main if n < one][-1:] == [place[0]]]
    return [finding for one in mine for finding in control_findings(ledger, campaign, one)]


def _side(ledger: Ledger, campaign: str, number: int) -> ComparedRound:
    row, frames = round_rows(ledger, campaign, number)[0], round_frames(ledger, campaign, number)
    best = headline(frames, relatives(ledger, campaign, frames.study))
    point = row_of_trial(ledger, campaign, number, best.trial)[1].point if best else None
    return ComparedRound(row, frames, effort_of(ledger, row, dict(point) if point is not None else None), best)


def _by_contest(ledger: Ledger, campaign: str, staged: ComparedRound, scratch: ComparedRound) -> Answer | None:
    """The newest `tuner adopt` between a trial of the control and one that starts from the weights (B32, B33)."""
    for row in reversed(ledger.studies(campaign)):
        concluded = ledger.conclusion(campaign, Adoption, row.study_id) if is_adoption(row.study) else None
        if concluded is None or len(row.study.lineage) != 2:
            continue
        of_control = [_is_of(place, scratch.name) for place, _ in row.study.lineage]
        starts = [round_start(ledger, campaign, place) for place, _ in row.study.lineage]
        if sum(of_control) != 1 or sum(map(bool, starts)) != 1:
            continue
        frames, efforts = contest_frames(ledger, campaign, row.study.name)
        found = adoption_finding(frames, level=concluded.level, minimum_gain=concluded.minimum_gain, efforts=efforts)
        return _of_contest(found, concluded, (efforts[0], efforts[1]), scratch_first=of_control[0])
    return None


def round_start(ledger: Ledger, campaign: str, study: str) -> str:
    """How the trials of a study start: "scratch", or "" as the campaign does."""
    return next((row.study.start for row in ledger.studies(campaign) if row.study.name == study), "")


def _of_contest(
    found: Finding, concluded: Adoption, efforts: tuple[StageEffort, StageEffort], *, scratch_first: bool
) -> Answer | None:
    if found.verdict == "inconclusive" or concluded.low is None or concluded.high is None:
        return None
    low, high = (-concluded.high, -concluded.low) if scratch_first else (concluded.low, concluded.high)
    verdict = "helps" if low > 0.0 else "costs" if high < 0.0 else "no_gain"
    diverged = found.evidence["diverged"].tolist()
    sure = verdict != "no_gain" and concluded.replicates >= REPLICATES and not any(diverged)
    strength: Strength = "strong" if sure else "moderate"  # that a gain is not seen is never sure
    ordered = (efforts[1], efforts[0]) if scratch_first else efforts
    return Answer(verdict, f"By fresh seeds of both: {found.summary}", ordered, strength)


def _by_trials(staged: ComparedRound, scratch: ComparedRound) -> Answer:
    """By one seed of each configuration, until fresh seeds were trained."""
    efforts, least = (staged.effort, scratch.effort), min(len(staged.values()), len(scratch.values()))
    bests = "; ".join(
        f"{what} {side.best.words if side.best else 'no complete trial'} ({side.name})"
        for what, side in (("from the weights", staged), ("from scratch", scratch))
    )
    unfinished = staged.frames.unfinished + scratch.frames.unfinished
    if unfinished or not least:
        return Answer("inconclusive", f"{unfinished} trials have not ended. {bests}.", efforts)
    if staged.is_search and least >= MINIMUM_EACH:
        chance = best_chances([staged.values(), scratch.values()])[0]
        verdict = "helps" if chance >= LEADS else "costs" if chance <= 1.0 - LEADS else "no_gain"
        told = f"The start from the weights is best in {chance:.1%} of draws of equally many trials"
        if verdict == "no_gain":
            told = f"{told}, and {LEADS:.2%} would be a gain, {1.0 - LEADS:.2%} a loss"
        return Answer(verdict, f"{told}. {bests}.", efforts)
    spread = replicate_spread(staged.frames) or replicate_spread(scratch.frames)
    if spread is None or staged.best is None or scratch.best is None:
        return Answer("inconclusive", f"How much results vary between seeds is not known. {bests}.", efforts)
    direction = staged.frames.study.objective.direction
    noise = Noise(spread.sd, spread.freedom)
    found = contrast([staged.best.value], [scratch.best.value], noise, direction)
    verdict = {"confirmed": "helps", "rejected": "costs"}.get(found.verdict, "no_gain")
    gain = better_or_worse(found.difference)
    told = f"The start from the weights is {gain}; seeds alone give a standard deviation of {spread.sd:.2g}"
    return Answer(verdict, f"{told}. {bests}.", efforts)


def _finding(staged: ComparedRound, scratch: ComparedRound, answer: Answer) -> Finding:
    summary = f"{_WORDS[answer.verdict]}, {_at_which_steps(*answer.efforts)}. {answer.because}"
    table = pd.DataFrame([_row("from the weights", staged), _row("from scratch", scratch)])
    action = ""
    if answer.strength == "weak" and staged.place and scratch.place:
        action = (
            "Train the best of both again with fresh seeds, equally often: tuner adopt STUDY_FILE --candidate "
            f"{staged.place} --baseline {scratch.place} (B32)."
        )
    if answer.verdict == "inconclusive" and staged.frames.unfinished + scratch.frames.unfinished:
        action = "Let the trials of both rounds complete, then ask again."
    caveats = [*_unequal_steps(*answer.efforts), *_unfair(staged, scratch), *scratch.frames.copies]
    unfair = answer.efforts[0].equal_to(answer.efforts[1]) == "nothing"
    strength: Strength = "weak" if unfair else answer.strength
    return QUESTION.answer(
        scratch.name, answer.verdict, summary, table, strength=strength, action=action, caveats=caveats
    )


def _at_which_steps(staged: StageEffort, scratch: StageEffort) -> str:
    equal = staged.equal_to(scratch)
    if equal == "in all":
        return f"at equal total steps ({staged.own:,} and {staged.inherited:,} inherited, against {scratch.own:,})"
    if equal == "of their own":
        return f"at equal steps of their own ({staged.own:,} each; {staged.inherited:,} more are behind the weights)"
    if not equal:
        return f"at {staged.own:,} steps each"
    return f"at unequal steps ({staged.own:,} and {staged.inherited:,} inherited, against {scratch.own:,})"


def _unequal_steps(staged: StageEffort, scratch: StageEffort) -> Iterator[str]:
    equal = staged.equal_to(scratch)
    if equal == "of their own":
        yield ('The price of the earlier stage is not counted: a control with total="equal" counts it (C5)')
    elif equal == "nothing":
        yield "Neither their own nor all steps are equal, so the difference may be that of the steps (C5)"


def _unfair(staged: ComparedRound, scratch: ComparedRound) -> Iterator[str]:
    """What is not equal besides the start and the steps, and what else limits the comparison."""
    few, many = sorted((len(staged.frames.complete), len(scratch.frames.complete)))
    if staged.is_search and many - few > SMALL and many > UNEQUAL * max(few, 1):
        yield f"One side completed {many} trials, the other {few}: the best of more is better by luck (B15, D41)"
    fewer, more = sorted((staged.evaluations, scratch.evaluations))
    if more > MORE_LOOKS * fewer:
        yield (
            f"Trials from the weights are evaluated {staged.evaluations} times and those from scratch "
            f"{scratch.evaluations} times: more looks give a better best (D32)"
        )
    for side in (staged, scratch):
        pressed = needing_action(boundary_findings(side.frames)) if side.is_search else []
        if pressed:
            names = ", ".join(one.subject for one in pressed)
            yield f"The best trials of {side.name} press against the range of {names}: it may not be at its best (D40)"
    if not staged.is_search:
        yield "The rounds that chose the promoted configurations are not counted as steps"


def _row(what: str, side: ComparedRound) -> dict[str, object]:
    best = side.best
    return {
        "start": what,
        "study": side.name,
        "complete": len(side.frames.complete),
        **side.effort.columns(),
        "evaluations": side.evaluations,
        "best_trial": best.trial if best else None,
        "best_value": best.selected_value if best else float("nan"),
        "value": best.value if best else float("nan"),
        "fresh_seeds": len(best.fresh) if best else 0,
    }


def _is_of(name: str, study: str) -> bool:
    """Whether a study is this round or a widening of it."""
    one, other = round_of(name), round_of(study)
    return one is not None and other is not None and one[0] == other[0]
