"""What each section says of a campaign."""

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pandas as pd
import pytest

from tuner.analysis.finding import NOTHING_TO_DO, Finding
from tuner.design.objective import Objective
from tuner.design.study import Study
from tuner.report import images
from tuner.report.images import image_of
from tuner.report.material import Material, read_material
from tuner.report.sections.rounds import studies
from tuner.report.sections.summary import summary
from tuner.report.winner import winner_of
from tuner.storage.store import Ledger

OpenPage = Callable[[Ledger, str], Any]


def test_the_winner_is_the_best_complete_trial_with_the_step_that_selection_chose(digits: Material) -> None:
    winner = winner_of(digits)
    assert winner is not None
    complete = digits.studies[0].frames.complete
    best = complete.sort_values("best_value").iloc[0]
    assert (winner.record.number, winner.value, winner.step) == (best["trial"], best["best_value"], best["best_step"])
    assert winner.checkpoint is not None
    assert winner.checkpoint.step == winner.step
    assert winner.last_value > winner.value  # the curves overfit: the last step is not the chosen one


def test_the_newest_round_names_the_winner_and_a_better_older_one_is_told(grown: Material) -> None:
    material = grown
    winner = winner_of(material)
    assert winner is not None
    assert winner.study.study.name == "round-2"
    older = material.studies[0].frames.complete["best_value"].min()
    told = any("of round-1 reached" in doubt for doubt in winner.doubts)
    assert told == bool(older < winner.value)


def test_the_page_holds_the_command_that_reproduces_the_winner(digits: Material, digits_page: Any) -> None:
    winner = winner_of(digits)
    assert winner is not None
    command = f"tuner replay studies/digits.py --round 1 --trial {winner.record.number}"
    assert winner.reproduce == command
    opened = digits_page
    assert command in opened.text
    assert winner.exact_point in opened.text
    assert "commit 0123456789ab, with uncommitted changes" in opened.text


def test_trials_that_are_not_finished_are_among_the_doubts(digits: Material) -> None:
    winner = winner_of(digits)
    assert winner is not None
    assert "2 trials of round-1 not finished yet: this may change." in winner.doubts


def test_every_finding_that_needs_action_is_in_the_summary_with_its_action(grown: Material) -> None:
    material = grown
    content: Any = summary(material)[0].content
    urgent = [finding for study in material.newest_first for finding in study.findings if finding.needs_action]
    listed_actions = [line.action for line in (*content.actions, *(line for line, _ in content.followed))]
    assert sorted(listed_actions) == sorted(finding.action for finding in urgent)
    listed = [line for _, lines in content.verdicts for line in lines]
    assert len(listed) == sum(len(study.findings) for study in material.studies) + len(material.placed)


def test_every_finding_shows_verdict_strength_thresholds_and_action(digits: Material, digits_page: Any) -> None:
    opened = digits_page
    for finding in digits.studies[0].findings:
        assert finding.summary in opened.text
        told = re.sub(r" --storage \S+`", "`", opened.text)  # commands find the records from any folder
        action = finding.action.replace("STUDY_FILE", "studies/digits.py")
        assert action == NOTHING_TO_DO or action in told
        assert finding.evidence_words in opened.text
        assert all(name.replace("_", " ") in opened.text for name in finding.thresholds)
        assert all(caveat in opened.text for caveat in finding.caveats)


@pytest.mark.parametrize(
    ("strength", "needs_action", "tone"),
    [("strong", False, "fine"), ("none", False, "open"), ("weak", True, "act"), ("none", True, "act")],
)
def test_only_what_is_decided_and_needs_nothing_is_fine(strength: Any, needs_action: bool, tone: str) -> None:
    finding = Finding("boundary", "x", "ok", strength, "", pd.DataFrame(), {}, "", needs_action=needs_action)
    assert finding.tone == tone


@pytest.mark.parametrize("verdict", ["still_improving", "saturated", "noisy", "sensitive", "leads", "tie"])
def test_what_is_known_and_no_all_clear_is_not_fine(verdict: str) -> None:
    assert Finding("improvement", "x", verdict, "strong", "", pd.DataFrame(), {}, "").tone == "told"


def test_the_tables_hold_trials_of_every_state_with_their_reasons(digits_study: Any, digits_page: Any) -> None:
    content = digits_study
    reasons = {row[1]: row[2] for row in content.uncounted.rows}
    assert reasons["failed"] == "RuntimeError: <b>size mismatch</b>"
    assert reasons["infeasible"] == "diverged at step 61: the loss is not finite"
    assert reasons["cancelled"] == "cancelled by the user"
    assert {"running", "waiting"} <= set(reasons)
    assert len(content.uncounted.rows) + len(content.complete.rows) == 30
    assert "diverged at step 61: the loss is not finite" in digits_page.text


def test_the_best_trial_stands_first_and_is_marked(digits: Material, digits_study: Any) -> None:
    content = digits_study
    values = [float(row[1]) for row in content.complete.rows]
    assert values == sorted(values)
    assert content.complete.marked == {0}
    winner = winner_of(digits)
    assert winner is not None
    assert content.complete.rows[0][0] == str(winner.record.number)


@pytest.mark.usefixtures("undrawn")
def test_where_the_objective_is_maximized_the_largest_value_stands_first(
    ledger: Ledger, declared: Callable[..., Study], fill: Callable[[Ledger, str, Study], None]
) -> None:
    fill(ledger, "up", replace(declared(), objective=Objective("validation/error_rate", "maximize")))
    content: Any = studies(read_material(ledger, "up"))[0].content
    values = [float(row[1]) for row in content.complete.rows]
    assert values == sorted(values, reverse=True)


def test_a_long_table_is_cut_and_says_how_much_is_missing(
    ledger: Ledger, page: OpenPage, declared: Callable[..., Study], begin: Callable[[Ledger, str, Study], int]
) -> None:
    begin(ledger, "long", declared(trials=256))
    assert "56 more rows not shown." in page(ledger, "long").text


def test_each_study_shows_its_plots_and_the_findings_lead_to_them(
    digits_study: Any, digits: Material, digits_page: Any
) -> None:
    opened = digits_page
    kinds = ["best-steps", "axes", "best-of-n", "isolation", "curves"]
    assert [one.anchor for one in digits_study.plots] == [f"study-1-{kind}" for kind in kinds]
    assert all(one.image is not None for one in digits_study.plots)
    assert len(opened.attributes("img", "src")) >= len(kinds)
    assert all(opened.attributes("img", "alt"))
    assert {"#study-1-best-steps", "#study-1-axes"} <= set(opened.attributes("a", "href"))


class Heavy:
    """A drawing whose SVG is as large as a test wants it."""

    def __init__(self, size: int) -> None:
        self.size = size

    def savefig(self, fname: Any, /, *, format: str, dpi: float) -> None:
        fname.write(b"s" * self.size if format == "svg" else b"p")

    def get_size_inches(self) -> tuple[float, float]:
        return 5.0, 2.5


@pytest.mark.parametrize(("size", "kind"), [(images.HEAVY, "svg+xml"), (images.HEAVY + 1, "png")])
def test_a_figure_too_heavy_as_svg_becomes_png(size: int, kind: str) -> None:
    image = image_of(Heavy(size), "words")
    assert image.source.startswith(f"data:image/{kind};base64,")
    assert (image.width, image.height) == (480, 240)
