"""No page contradicts itself: the findings of one study, over studies of many kinds, can all be true together."""

import re
from dataclasses import replace

import pytest

from benchmarks.synthetic import best_step_case, boundary_case, regime_case
from tuner.analysis.checklist import advised, checklist_findings
from tuner.analysis.finding import Finding
from tuner.analysis.study_frames import StudyFrames

_STEPS = re.compile(r"\b(?:[Tt]rain|for) ([\d,]+) steps")
_GOOD = re.compile(r"(\d+) good trials")
_OPPOSITE = {("still_improving", "ok"), ("still_improving", "too_long"), ("saturated", "maybe_too_short")}
_NOISE = re.compile(r"evaluation noise is ([\d.e+-]+)")


def cases() -> list[tuple[str, StudyFrames]]:
    found = [
        (f"{kind}, {trials} trials", frames)
        for trials in (6, 30)
        for seed in range(3)
        for kind, frames in [
            ("best steps", best_step_case(seed, trials=trials, evaluations=50, noise=0.02).frames),
            ("regime", regime_case(seed, trials=trials, evaluations=50, noise=0.02).frames),
            ("few evaluations", best_step_case(seed, trials=trials, evaluations=10, noise=0.1).frames),
        ]
    ]
    found += [
        ("boundaries", boundary_case(seed, trials=trials, dims=3, relevant=2, noise=0.02).frames)
        for trials in (8, 30)
        for seed in range(4)
    ]
    return [(f"{name} ({place})", frames) for place, (name, frames) in enumerate(found)]


@pytest.fixture(scope="module")
def pages() -> list[tuple[str, list[Finding]]]:
    """Each study as trained here, and as imported."""
    studies = cases()
    found = [(name, advised(frames, checklist_findings(frames))) for name, frames in studies]
    for name, frames in studies[::3]:
        elsewhere = replace(frames, study=replace(frames.study, source="Optuna study mine"))
        found.append((f"{name}, imported", advised(elsewhere, checklist_findings(elsewhere))))
    return found


def text(finding: Finding) -> str:
    return " ".join((finding.summary, *finding.caveats, finding.action))


def test_a_page_proposes_one_number_of_steps(pages: list[tuple[str, list[Finding]]]) -> None:
    for name, findings in pages:
        proposed = {steps for one in findings for steps in _STEPS.findall(one.action)}
        assert len(proposed) <= 1, f"{name}: {[one.action for one in findings]}"
    assert any(_STEPS.search(one.action) for _, findings in pages for one in findings)


def test_a_page_counts_its_good_trials_once(pages: list[tuple[str, list[Finding]]]) -> None:
    for name, findings in pages:
        counts = {count for one in findings for count in _GOOD.findall(text(one))}
        assert len(counts) <= 1, f"{name}: {[text(one) for one in findings if _GOOD.search(text(one))]}"
    assert any(_GOOD.search(text(one)) for _, findings in pages for one in findings)


def test_a_page_speaks_of_one_noise(pages: list[tuple[str, list[Finding]]]) -> None:
    for name, findings in pages:
        noises = {noise for one in findings for noise in _NOISE.findall(text(one))}
        assert len(noises) <= 1, f"{name}: {[text(one) for one in findings if _NOISE.search(text(one))]}"
    assert any(_NOISE.search(text(one)) for _, findings in pages for one in findings)


def test_no_sentence_has_a_number_that_is_none(pages: list[tuple[str, list[Finding]]]) -> None:
    for name, findings in pages:
        for one in findings:
            assert not re.search(r"\b(nan|inf|NaN)\b", text(one)), f"{name}: {text(one)}"


def test_improvement_and_best_steps_agree(pages: list[tuple[str, list[Finding]]]) -> None:
    for name, findings in pages:
        verdicts = {one.question: one.verdict for one in findings}
        pair = (verdicts.get("improvement"), verdicts.get("best_steps"))
        assert pair not in _OPPOSITE, name


def test_what_is_undecided_has_no_strength_and_what_is_fine_asks_for_nothing(
    pages: list[tuple[str, list[Finding]]],
) -> None:
    for name, findings in pages:
        for one in findings:
            assert (one.verdict in ("inconclusive", "undecided", "no_curves")) <= (one.strength == "none"), name
            assert one.tone != "fine" or not re.match(r"Train|Complete|Search|Shrink", one.action), (
                f"{name}: {text(one)}"
            )
