"""Advice that agrees: where two findings advise about the same thing, one of them is changed before a reader sees both.

Each question is answered alone. Where two answers lead to different actions about the same budget, range or comparison,
the one with more evidence keeps its action, and the other one refers to it.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from tuner.analysis.finding import NOTHING_TO_DO, Finding
from tuner.design.names import Name

_LONGER = ("maybe_too_short", "mixed")
_SIDES = {"expand_low": "below", "expand_high": "above"}


@dataclass(frozen=True, slots=True)
class _Others:
    """All findings of a study, for the rules that compare them."""

    findings: tuple[Finding, ...]

    def verdict(self, question: str) -> str:
        return next((one.verdict for one in self.findings if one.question == question), "")

    def urgent(self, question: str) -> bool:
        return any(one.needs_action for one in self.findings if one.question == question)

    @property
    def widened(self) -> list[Finding]:
        return [one for one in self.findings if one.question == "boundary" and one.verdict in _SIDES]

    @property
    def ranges(self) -> str:
        return " and ".join(dict.fromkeys(one.subject for one in self.widened))


def reconciled(findings: Iterable[Finding]) -> list[Finding]:
    """The findings of one study, in their order, with advice that can be followed together.

    About the budget: a stale budget comes before the best steps, overfitting before a longer run, and only the best
    steps propose a number of steps. About the space: a range is widened before points are added to it, values are
    compared, or a part of it is removed. Verdicts stay as they are; only actions and caveats change.
    """
    found = list(findings)
    others = _Others(tuple(found))
    return [_agreed(finding, others) for finding in found]


def _agreed(finding: Finding, others: _Others) -> Finding:
    for rule in _RULES.get(finding.question, ()):
        finding = rule(finding, others)
    return finding


def _after_stale(finding: Finding, others: _Others) -> Finding:
    again = any(one.question == "stale_budget" and "sweep again" in one.action for one in others.findings)
    if not again or not finding.needs_action:
        return finding
    first = (
        "First choose the budget again, as the finding on the stale budget proposes; then check the best steps again."
    )
    return replace(finding, action=first, needs_action=False)


def _after_overfitting(finding: Finding, others: _Others) -> Finding:
    if finding.verdict not in _LONGER or not others.urgent("overfitting"):
        return finding
    return replace(finding, action=f"First regularize, as the overfitting finding proposes. Then: {finding.action}")


def _after_longer(finding: Finding, others: _Others) -> Finding:
    if finding.verdict not in (*_LONGER, "ok") or others.verdict("longer_training") != "no_gain":
        return finding
    if finding.verdict == "ok":
        doubt = "With fresh seeds the last lengthening gained nothing: the shorter length may be as good."
        return replace(finding, strength="weak", caveats=(*finding.caveats, doubt))
    seen = "With fresh seeds the last lengthening gained nothing, so another one probably gains nothing either."
    return replace(finding, strength="weak", caveats=(*finding.caveats, seen))


def _one_budget(finding: Finding, others: _Others) -> Finding:
    """Improvement and regime leave the number of steps to the best steps; which checkpoint to use they do advise."""
    best = others.verdict("best_steps")
    if not best or best == "no_curves" or finding.verdict == "got_worse":
        return finding
    if best in _LONGER:
        return replace(finding, action="The longer run that the best-step finding proposes decides this, too.")
    if best == "too_long" and finding.verdict not in ("inconclusive", "no_curves"):
        return replace(finding, action="The best-step finding proposes the number of steps.")
    if best == "ok" and finding.verdict == "compute_bound":
        return replace(finding, action=_PRODUCTION)
    if best == "ok" and finding.verdict in ("saturated", "still_improving"):
        return replace(finding, action=NOTHING_TO_DO)
    return finding


_PRODUCTION = (
    "Keep these steps, as the best-step finding proposes, to compare configurations; the production run may be as "
    "long as you can afford (A2)."
)


def _once(finding: Finding, others: _Others) -> Finding:
    """Longer training needs fresh seeds; only the best steps propose a number of steps."""
    best = others.verdict("best_steps")
    if best in ("", "no_curves") or (finding.verdict, best) == ("gained", "ok"):
        return finding
    if finding.verdict == "inconclusive" and best in _LONGER:
        before = "Before the longer run that the best-step finding proposes"
        return replace(finding, action=f"{before}: {_FRESH_LENGTHS}")
    return replace(finding, action=f"The best-step finding proposes the number of steps. To be sure, {_FRESH_LENGTHS}")


_FRESH_LENGTHS = "train several lengths with fresh seeds: tuner budget-curve STUDY_FILE --seeds 3."


def _told_apart(finding: Finding, others: _Others) -> Finding:
    """Where fresh seeds of the winner and its rival were trained, their finding shows whether the two are tied."""
    if finding.verdict != "noisy":
        return finding
    told = next((one for one in others.findings if (one.question, one.subject) == ("transfer", "winner")), None)
    if told is None:
        return finding
    if told.verdict == "confirmed":
        return replace(finding, action="Choose by fresh seeds, not by these values: they confirm the winner (B32).")
    if told.verdict == "rejected":
        return replace(finding, action="Choose by fresh seeds, not by these values: they prefer the rival (B32).")
    return replace(
        finding, action="Treat the top trials as tied until fresh seeds decide, as the winner's finding proposes."
    )


def _points_for_a_range(finding: Finding, others: _Others) -> Finding:
    """More points for one undecided range, unless the space has to grow or does not matter."""
    if finding.verdict != "inconclusive":
        return finding
    if others.widened:
        first = f"First widen {others.ranges}: the trials of the wider space show more about {finding.subject}, too."
        return replace(finding, action=first)
    if others.verdict("insensitivity") == "insensitive":
        first = (
            "Nothing that was searched matters, as the insensitivity finding shows, so more configurations help little."
        )
        return replace(finding, action=first)
    if others.verdict("enough_points") == "enough":
        only = f"Only if it matters where the range of {finding.subject} ends: {finding.action[:1].lower()}"
        return replace(finding, action=f"{only}{finding.action[1:]} To find a good value there are enough.")
    return finding


def _widen_first(finding: Finding, others: _Others) -> Finding:
    if finding.verdict != "sparse" or not others.widened:
        return finding
    first = (
        f"First widen {others.ranges}, as the boundary finding proposes: the trials of the wider space count here, too."
    )
    return replace(finding, action=first)


def _not_fixed(finding: Finding, others: _Others) -> Finding:
    if finding.verdict != "insensitive" or not others.widened:
        return finding
    first = f"First widen {others.ranges}: beyond the range it may matter. Then ask again."
    return replace(finding, action=first, needs_action=False)


def _compared_later(finding: Finding, others: _Others) -> Finding:
    if finding.verdict not in ("leads", "tie"):
        return finding
    if others.urgent("effort"):
        return replace(finding, action="First give each value as many trials, as the finding on equal effort proposes.")
    if others.widened:
        later = f"{others.ranges} should be searched wider first: the comparison may change there."
        return replace(finding, caveats=(*finding.caveats, later))
    return finding


def _not_given_up(finding: Finding, others: _Others) -> Finding:
    """A part of the space where trials diverge is kept where results improve towards it."""
    if finding.verdict != "many_infeasible":
        return finding
    both = [one.subject for one in others.widened if f"{one.subject} {_SIDES[one.verdict]}" in finding.summary]
    if not both:
        return finding
    names = " and ".join(both)
    return replace(
        finding,
        action=f"Trials fail where {names} gives the best results, so keep the range and make training stable there: "
        "warmup, gradient clipping, or another parameterization (B22, B36).",
    )


def _stable_first(finding: Finding, others: _Others) -> Finding:
    rate = Name.of(finding.subject).short == "learning_rate"
    if finding.verdict != "expand_high" or not rate or others.verdict("instability") != "likely_instability":
        return finding
    first = "Higher rates will probably diverge unless training is made stable first, as the instability finding shows."
    return replace(finding, caveats=(*finding.caveats, first))


def _clipped_already(finding: Finding, others: _Others) -> Finding:
    if finding.verdict != "likely_instability" or others.verdict("clipping") != "mostly_clipped":
        return finding
    seen = "Most updates are clipped already, as the finding on clipping shows: more clipping helps little."
    return replace(finding, caveats=(*finding.caveats, seen))


def _clipped_less(finding: Finding, others: _Others) -> Finding:
    """A lower rate or a larger clip_norm, where the trials do not improve the other way."""
    if finding.verdict != "mostly_clipped":
        return finding
    ways = [_TOWARDS[way] for one in others.widened if (way := (Name.of(one.subject).short, one.verdict)) in _TOWARDS]
    return replace(finding, caveats=(*finding.caveats, *dict.fromkeys(ways)))


_TOWARDS = {
    ("learning_rate", "expand_high"): "Results improve towards higher learning rates, so raise clip_norm first.",
    ("clip_norm", "expand_low"): "Results improve towards a lower clip_norm, so search lower learning rates first.",
}


def _mended_first(finding: Finding, others: _Others) -> Finding:
    """Where the data spoil every trial, more points of the same space show nothing."""
    spoiled = any(one.question == "infeasible" and one.action.startswith("Correct") for one in others.findings)
    if not spoiled or finding.strength != "none":
        return finding
    return replace(finding, action="First correct the data or the loss, as the finding on infeasible trials proposes.")


_Rule = Callable[[Finding, _Others], Finding]
_RULES: dict[str, Sequence[_Rule]] = {
    "best_steps": (_after_longer, _after_overfitting, _after_stale, _mended_first),
    "improvement": (_one_budget, _mended_first),
    "regime": (_one_budget, _mended_first),
    "longer_training": (_once,),
    "boundary": (_points_for_a_range, _stable_first, _mended_first),
    "late_variance": (_told_apart,),
    "enough_points": (_widen_first, _mended_first),
    "insensitivity": (_not_fixed, _mended_first),
    "isolation": (_compared_later, _mended_first),
    "infeasible": (_not_given_up,),
    "instability": (_clipped_already, _mended_first),
    "clipping": (_clipped_less,),
}
