"""Do the conclusions of a round hold in the next, longer one? confirmed, rejected or unconfirmed (A30, A32, A45, D25).

Only trainings with fresh seeds decide. Where no other values were trained at the new length, a conclusion stays
unconfirmed, and one finding names all of these. `conclusions_frame` derives from the findings which conclusions of a
campaign still hold. A conclusion keeps the length at which it was made; a rejected one is not carried further.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import pandas as pd
from scipy import stats

from tuner.analysis.finding import Finding, Question, Verdict
from tuner.analysis.good_trials import good_trials
from tuner.analysis.questions.isolation import isolation_findings
from tuner.analysis.questions.longer_training import UNTIL_COMPLETE, longer_training_finding
from tuner.analysis.ranges import unit_positions
from tuner.analysis.replicates import (
    LEVEL,
    Contrast,
    Noise,
    contrast,
    fresh_values,
    ranked_parents,
    transfer_pairs,
    trial_noise,
)
from tuner.analysis.study_frames import MINIMUM_COMPLETE, StudyFrames, stopping_words
from tuner.design.hyperparameters import Choice, Hyperparameter, Range

MINIMUM_RANKED = 4  # [P] points with fresh seeds below which a rank correlation shows nothing
AGREES, DISAGREES = 0.5, 0.0  # [P] ranks agree from the first correlation on, and disagree up to the second
TOP_SHARE = 1 / 3  # [P] of the points are the top ones whose overlap is counted

QUESTION = Question(
    name="transfer",
    sentence="Does it still hold at this length?",
    order=310,
    verdicts=(
        Verdict("confirmed", "fine"),
        Verdict("rejected", "act"),
        Verdict("unconfirmed", "open", "Train both with fresh seeds before you rely on the difference (B32)."),
    ),
    thresholds={"level": LEVEL, "minimum_ranked": MINIMUM_RANKED, "agrees": AGREES, "disagrees": DISAGREES},
    titles={
        "winner": "Is the winner still better than its rival?",
        "ranking": "Do configurations rank as they did?",
        "best regions": "Are the best ranges still the same?",
    },
    plot="transfer",
    rules=("A30", "A32", "A45", "B32", "D20", "D25"),
)


WIDE = 0.60  # [P] of the range: good trials lie nearly everywhere, so the hyperparameter hardly matters


@dataclass(frozen=True, slots=True)
class Region:
    """The values of the good trials, from `low` to `high`, and of the best one; positions are in units of the range."""

    low: float
    high: float
    best: float
    positions: tuple[float, float, float]

    @property
    def is_wide(self) -> bool:
        return self.positions[1] - self.positions[0] > WIDE

    @property
    def words(self) -> str:
        return f"{self.low:.3g} to {self.high:.3g}, best at {self.best:.3g}"


COLUMNS = ("conclusion", "drawn_at", "asked_at", "verdict", "state", "why")
_STATES = {"confirmed": "promoted", "rejected": "rejected", "unconfirmed": "unconfirmed"}


@dataclass(frozen=True, slots=True)
class Comparison:
    """A round and the longer one after it. tested: parents with complete fresh trainings, best before first."""

    before: StudyFrames
    after: StudyFrames
    pairs: pd.DataFrame
    noise: Noise
    parents: tuple[int, ...]
    tested: tuple[int, ...]

    @classmethod
    def of(cls, before: StudyFrames, after: StudyFrames) -> "Comparison":
        pairs = transfer_pairs(before, after)
        parents = ranked_parents(pairs, before.study.objective.direction)
        tested = tuple(parent for parent in parents if fresh_values(pairs, parent))
        return cls(before, after, pairs, trial_noise(pairs), tuple(parents), tested)

    @property
    def sign(self) -> float:
        return self.before.study.objective.sign

    @property
    def old_steps(self) -> str:
        return f"{self.before.study.budget.max_train_steps:,}"

    @property
    def steps(self) -> str:
        return f"{self.after.study.budget.max_train_steps:,}"

    @property
    def lengths_compared(self) -> str:
        if not self.is_longer:
            return f"Both rounds used {self.steps} steps, so this tests seed variance only, not longer training."
        return (
            f"Concluded after {self.old_steps} steps and tested after {self.steps}; a still longer run may give "
            "another answer (A30)."
        )

    @property
    def is_longer(self) -> bool:
        return self.after.study.budget.max_train_steps > self.before.study.budget.max_train_steps

    def contest(self, first: int, second: int) -> str:
        """The command that trains both parents' points again, equally often, at the new length."""
        trials = self.pairs[self.pairs["rate"] == 1.0].drop_duplicates("parent").set_index("parent")["trial"]
        places = [f"{self.after.study.name}/{int(trials[parent])}" for parent in (first, second)]
        return f"tuner adopt STUDY_FILE --candidate {places[0]} --baseline {places[1]}."

    def contrast(self, first: int, second: int) -> Contrast:
        """How much better a parent's point is than another's, by fresh seeds at the new length."""
        direction = self.before.study.objective.direction
        return contrast(fresh_values(self.pairs, first), fresh_values(self.pairs, second), self.noise, direction)

    def finding(
        self, subject: str, verdict: str, summary: str, action: str = "", evidence: pd.DataFrame | None = None
    ) -> Finding:
        """A weak answer, or an open question; only a conclusion that failed asks for action."""
        table = self.pairs if evidence is None else evidence
        caveats = (self.lengths_compared, *self.after.copies)
        return QUESTION.answer(subject, verdict, summary, table, strength="weak", action=action, caveats=caveats)

    @property
    def more_points(self) -> str:
        return (
            f"The result of {self.before.study.name} has not been confirmed by an independent run of {self.steps} "
            "steps. To test it, promote more configurations with fresh seeds (promote=..., fresh=...), or search new "
            "ones in the later round (trials=...)."
        )


def transfer_findings(before: StudyFrames, after: StudyFrames) -> list[Finding]:
    """What `after` shows about the conclusions of `before`; empty where no trial of `after` came from there.

    Ranks are compared where enough points were promoted, and ranges where the training is longer: at an equal length
    they could only show the luck of seeds, and the winner's finding shows that.
    """
    comparison = Comparison.of(before, after)
    if comparison.pairs.empty:
        return []
    found = [longer_training_finding(before, after)] * comparison.is_longer
    found.append(winner_finding(comparison))
    found += [ranking_finding(comparison)] * (len(comparison.parents) >= MINIMUM_RANKED)
    judged = [(h.name, _judged(comparison, h)) for h in before.study.hyperparameters]
    found += [finding for _, finding in judged if finding is not None]
    open_ones = [name for name, finding in judged if finding is None] if comparison.is_longer else []
    return [*found, *_untested(comparison, open_ones)]


def winner_finding(comparison: Comparison) -> Finding:
    """Is the winner of the shorter round still better than its rival, by their fresh seeds?"""
    first, tested = comparison.parents[0], comparison.tested
    name = comparison.before.study.name
    if len(tested) < 2 or tested[0] != first:
        summary = (
            f"The winner of {name}, trial {first}, and a rival were not both trained to the end with fresh seeds, so "
            "they cannot be compared."
        )
        promote = "Promote two or more configurations with fresh seeds."
        if comparison.after.stopped_early().any():
            summary = f"{stopping_words(comparison.after)}. {summary}"
            promote = "Leave patience_steps out of the round."
        action = UNTIL_COMPLETE if comparison.after.unfinished else promote
        return comparison.finding("winner", "unconfirmed", summary, action)
    rival, found = tested[1], comparison.contrast(first, tested[1])
    summary = (
        f"With fresh seeds of both, after {comparison.steps} steps, the winner of {name} (trial {first}) is "
        f"{found.words} than its rival (trial {rival})."
    )
    better = f"it is better than the winner after {comparison.steps} steps."
    actions = {
        "unconfirmed": f"Train both with more fresh seeds: {comparison.contest(first, rival)}",
        "rejected": f"Use the rival, trial {rival} of {name}: {better}",
    }
    return comparison.finding("winner", found.verdict, summary, actions.get(found.verdict, ""))


def ranking_finding(comparison: Comparison) -> Finding:
    """Do points rank as they did? Spearman's correlation and the overlap of the best, over fresh seeds only."""
    ranked = _ranked_pairs(comparison)
    same = int(((comparison.pairs["seeds"] == "same") & comparison.pairs["complete"]).sum())
    aside = f" {same} more trainings repeat the seeds they were chosen by, and are not counted." if same else ""
    if len(ranked) < MINIMUM_RANKED:
        were = "configuration was" if len(ranked) == 1 else "configurations were"
        summary = (
            f"Only {len(ranked)} {were} retrained with new seeds; comparing rankings needs at least "
            f"{MINIMUM_RANKED}.{aside}"
        )
        return comparison.finding("ranking", "unconfirmed", summary, comparison.more_points)
    correlation = float(stats.spearmanr(ranked["value_before"], ranked["value"]).statistic)
    count = max(1, round(TOP_SHARE * len(ranked)))
    tops = [set(ranked.nsmallest(count, column)["parent"]) for column in ("value_before", "value")]
    verdict = "confirmed" if correlation >= AGREES else "rejected" if correlation <= DISAGREES else "unconfirmed"
    summary = (
        f"The ranks of {len(ranked)} configurations after {comparison.old_steps} steps and, with new seeds, after "
        f"{comparison.steps} steps have a correlation of {correlation:.2f}; {len(tops[0] & tops[1])} of the best "
        f"{count} are the same.{aside}"
    )
    actions = {
        "unconfirmed": comparison.more_points,
        "rejected": "Short trials do not show which configuration is best for long ones: promote more configurations, "
        "or give the earlier round more steps.",
    }
    return comparison.finding("ranking", verdict, summary, actions.get(verdict, ""))


def _ranked_pairs(comparison: Comparison) -> pd.DataFrame:
    """A row a point with complete fresh trainings: parent, value_before, value (their mean), less is better."""
    pairs, sign = comparison.pairs, comparison.sign
    counted = pairs[(pairs["seeds"] == "fresh") & pairs["complete"] & (pairs["rate"] == 1.0)]
    table = counted.groupby("parent", as_index=False)[["value_before", "value"]].mean()
    return table.assign(value_before=sign * table["value_before"], value=sign * table["value"])


def _judged(comparison: Comparison, hyperparameter: Hyperparameter) -> Finding | None:
    """What the longer round shows about one hyperparameter; None where it tried no other value."""
    if isinstance(hyperparameter.domain, Choice):
        return _choice_finding(comparison, hyperparameter.name)
    arms = _arms_finding(comparison, hyperparameter) if hyperparameter.short_name == "learning_rate" else None
    return arms or _region_finding(comparison, hyperparameter.name, hyperparameter.domain)


def _region_finding(comparison: Comparison, name: str, domain: Range) -> Finding | None:
    """Compare the regions of the good trials; trials that share their parent's luck do not count."""
    old, new = best_region(comparison.before, name, domain), best_region(_independent(comparison), name, domain)
    if old is None or new is None:
        return None
    rows = [(comparison.before, old), (comparison.after, new)]
    table = pd.DataFrame([_region_row(frames, region) for frames, region in rows])
    wide = f" Good trials lie nearly everywhere, so {name} hardly matters." if old.is_wide and new.is_wide else ""
    summary = (
        f"The good trials had {name} {old.words}, after {comparison.old_steps} steps, and {new.words}, after "
        f"{comparison.steps}.{wide}"
    )
    verdict = agreement(old, new)
    action = f"Search around {new.best:.3g} at this length." if verdict == "rejected" else ""
    return comparison.finding(name, verdict, summary, action, table)


def _region_row(frames: StudyFrames, region: Region) -> dict[str, object]:
    return {"study": frames.study.name, "low": region.low, "high": region.high, "best": region.best}


def _arms_finding(comparison: Comparison, hyperparameter: Hyperparameter) -> Finding | None:
    """The winner's other rates against its own, with fresh seeds (D20)."""
    pairs, first, name = comparison.pairs, comparison.parents[0], hyperparameter.name
    own = fresh_values(pairs, first)
    arms = sorted({float(rate) for rate in pairs["rate"] if rate != 1.0 and fresh_values(pairs, first, float(rate))})
    exists = comparison.before.trials.set_index("trial")[name].notna()
    if not own or not arms or not exists[first]:
        return None
    direction = comparison.before.study.objective.direction
    found = {arm: contrast(own, fresh_values(pairs, first, arm), comparison.noise, direction) for arm in arms}
    verdicts = {one.verdict for one in found.values()}
    verdict = next(one for one in ("rejected", "unconfirmed", "confirmed") if one in verdicts)
    summary = "; ".join(f"{one.words} than at {arm:g} times it" for arm, one in found.items())
    best = min(found, key=lambda arm: found[arm].difference)
    instead = f"Use {best:g} times the rate at this length: the best rate usually falls as training gets longer (D20)."
    action = instead if verdict == "rejected" else ""
    return comparison.finding(name, verdict, f"At its own rate the winner is {summary}.", action)


def _choice_finding(comparison: Comparison, name: str) -> Finding | None:
    """The winner's value against the best point of another value, both chosen by the round before."""
    values, tested = comparison.before.trials.set_index("trial")[name], comparison.tested
    others = [parent for parent in tested[1:] if repr(values[parent]) != repr(values[tested[0]])]
    if not others:
        return None
    first, other = tested[0], others[0]
    found = comparison.contrast(first, other)
    summary = f"After {comparison.steps} steps {name} {values[first]} is {found.words} than {values[other]}."
    action = f"Use {values[other]} at this length." if found.verdict == "rejected" else ""
    return comparison.finding(name, found.verdict, summary, action)


def _independent(comparison: Comparison) -> StudyFrames:
    """The longer round without trials that share their parent's luck, and without the winner's other rates."""
    pairs, after = comparison.pairs, comparison.after
    shared = pairs.loc[(pairs["seeds"] == "same") | (pairs["rate"] != 1.0), "trial"]
    return replace(after, trials=after.trials[~after.trials["trial"].isin(shared)])


def _untested(comparison: Comparison, names: list[str]) -> Iterator[Finding]:
    if names:
        summary = (
            f"{comparison.after.study.name} trained too few other values of {', '.join(names)} to show whether their "
            f"best ranges are the same after {comparison.steps} steps."
        )
        yield comparison.finding("best regions", "unconfirmed", summary, comparison.more_points, pd.DataFrame())


def best_region(frames: StudyFrames, name: str, domain: Range) -> Region | None:
    """The region of the good trials, in units of `domain`; None where too few trials have completed."""
    if name not in frames.trials or frames.complete[name].notna().sum() < MINIMUM_COMPLETE:
        return None
    good = good_trials(frames)
    good = good[good[name].notna()]
    if good.empty or frames.complete[name].nunique() < MINIMUM_COMPLETE:
        return None
    values = good[name].to_numpy(dtype=np.float64)
    units = unit_positions(good[name], domain)
    place = (float(units.min()), float(units.max()), float(units[0]))
    return Region(float(values.min()), float(values.max()), float(values[0]), place)


def agreement(before: Region, after: Region) -> str:
    """confirmed: each round's best lies in the other's region; rejected: the regions do not meet."""
    (low, high, best), (later_low, later_high, later_best) = before.positions, after.positions
    if later_low > high or later_high < low:
        return "rejected"
    inside = low <= later_best <= high and later_low <= best <= later_high
    return "confirmed" if inside else "unconfirmed"


def conclusions_frame(rounds: Sequence[StudyFrames]) -> pd.DataFrame:
    """One row a conclusion of a round, in the order of the rounds.

    Columns: conclusion, drawn_at and asked_at (the steps at which it was concluded and tested; asked_at <NA> where no
    later round has tested it), verdict (of the round that tested it, "" without one), state, why. Controls of a stage
    test no conclusion, and are passed over.
    """
    rounds = [one for one in rounds if not one.study.start]
    rows: list[dict[str, object]] = []
    for before, after in pairwise(rounds):
        tested_at = after.study.budget.max_train_steps
        for finding in transfer_findings(before, after):
            if finding.question == "transfer":
                rows.append(_row(before, finding.subject, tested_at, finding))
    if rounds:
        rows += [_row(rounds[-1], subject, None, None) for subject in _open_subjects(rounds[-1])]
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    return table.astype({"drawn_at": "Int64", "asked_at": "Int64"})


def _open_subjects(last: StudyFrames) -> list[str]:
    """What the last round concludes and no longer round has tested."""
    if last.complete.empty:
        return []
    return ["winner", *(finding.subject for finding in isolation_findings(last) if finding.verdict == "leads")]


def _row(before: StudyFrames, subject: str, tested_at: int | None, finding: Finding | None) -> dict[str, object]:
    verdict = finding.verdict if finding else ""
    return {
        "conclusion": f"{subject} of {before.study.name}",
        "drawn_at": before.study.budget.max_train_steps,
        "asked_at": tested_at,
        "verdict": verdict,
        "state": _STATES.get(verdict, "unconfirmed"),
        "why": finding.summary if finding else "no later round has tested it",
    }
