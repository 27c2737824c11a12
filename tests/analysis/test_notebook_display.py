"""How a notebook shows what was found; names that mean harm stay text."""

from dataclasses import replace

from analysis.handmade import frames_of_values, study

from tuner.analysis.questions.enough_points import enough_points_finding


def test_a_finding_and_a_study_show_themselves_and_escape_names():
    frames = frames_of_values(study(), [{"learning_rate": 1e-3}] * 9, [0.1 * i for i in range(9)])
    finding = enough_points_finding(frames)
    html = replace(finding, subject="<script>", caveats=("<b>",))._repr_html_()
    assert "<script>" not in html
    assert "&lt;script&gt;" in html
    assert finding.verdict in html
    shown = replace(frames, study=replace(frames.study, goal="<script>"))._repr_html_()
    assert "9 complete" in shown
    assert "<script>" not in shown


def test_a_finding_prints_as_a_few_lines_and_not_as_its_evidence():
    frames = frames_of_values(study(), [{"learning_rate": 1e-3}] * 9, [0.1 * i for i in range(9)])
    finding = replace(enough_points_finding(frames), caveats=("Look.",), needs_action=True, action="Act.")
    assert repr(finding).splitlines() == [
        f"⚠ enough points of {frames.study.name}: {finding.verdict} ({finding.evidence_words})",
        f"  {finding.summary}", "  note: Look.", "  → Act.",
    ]  # fmt: skip
    of_a_range = replace(finding, question="boundary", subject="learning_rate", needs_action=False)
    assert repr(of_a_range).startswith("learning_rate: ")
