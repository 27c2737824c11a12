"""The page as a whole: self-contained, inert, findings before plots, and there in every state of a campaign."""

import re
import stat
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tuner.design.hyperparameters import choice, log_uniform
from tuner.design.space import SearchSpace
from tuner.design.study import Study
from tuner.errors import InputError, StorageError
from tuner.report.page import report_path, write_report
from tuner.storage.store import Ledger

OpenPage = Callable[[Ledger, str], Any]
Declare = Callable[..., Study]
# Attributes by which a browser fetches something.
FETCHING = ("src", "srcset", "data", "poster", "background", "action", "formaction", "cite", "manifest", "ping")


def test_the_page_asks_for_nothing_from_outside(digits_page: Any) -> None:
    opened = digits_page
    fetched = [value for _, values in opened.elements for name, value in values.items() if name in FETCHING]
    assert fetched
    assert all(re.match(r"data:image/(svg\+xml|png);base64,", value) for value in fetched)
    links = opened.attributes("a", "href")
    assert links
    assert all(target.startswith("#") for target in links)
    assert not {"script", "link", "iframe", "object", "embed", "base", "form"} & {tag for tag, _ in opened.elements}
    assert not re.search(r"@import|url\(", opened.html)


def test_the_policy_forbids_everything_but_its_own_styles_and_images(digits_page: Any) -> None:
    opened = digits_page
    policy = next(values["content"] for tag, values in opened.elements if tag == "meta" and "http-equiv" in values)
    assert policy.startswith("default-src 'none'; style-src 'unsafe-inline'; img-src data:;")
    assert "script-src" not in policy


def test_every_link_leads_somewhere_on_the_page_and_no_anchor_stands_twice(grown_page: Any) -> None:
    opened = grown_page
    targets = {target.removeprefix("#") for target in opened.attributes("a", "href")}
    assert targets <= set(opened.anchors)
    assert len(opened.anchors) == len(set(opened.anchors))


def test_findings_stand_before_plots_and_the_newest_study_first(grown_page: Any) -> None:
    opened = grown_page
    order = [opened.anchors.index(name) for name in ("summary", "findings", "study-1", "study-2", "provenance")]
    assert order == sorted(order)
    assert opened.html.index("<article") < opened.html.index("<img")
    assert opened.anchors.index("study-2-finding-1") < opened.anchors.index("study-1-finding-1")


HOSTILE = "<script>alert(1)</script> $x_{$ =cmd() {{ 7777*7777 }} \" onload='x' & NA"


def test_names_and_reasons_are_text_and_nothing_else(
    ledger: Ledger, page: OpenPage, declared: Declare, fill: Callable[[Ledger, str, Study], None]
) -> None:
    space = SearchSpace(
        learning_rate=log_uniform(1e-4, 1e-1), **{"$x_{$": choice("<img src=x onerror=alert(2)>", "=cmd()", "NA")}
    )
    fill(ledger, HOSTILE, replace(declared(space), goal=HOSTILE))
    opened = page(ledger, HOSTILE)
    assert "script" not in {tag for tag, _ in opened.elements}
    assert not [name for _, values in opened.elements for name in values if name.startswith("on")]
    assert opened.text.count(HOSTILE) >= 3  # the title, the heading, the goal
    for text in ("$x_{$", "<img src=x onerror=alert(2)>", "=cmd()", "RuntimeError: <b>size mismatch</b>"):
        assert text in opened.text
    assert "60481729" not in opened.text.partition("Tuning report")[2].partition("Summary")[0]


def test_a_campaign_whose_trials_all_wait_has_a_page(
    ledger: Ledger, page: OpenPage, declared: Declare, begin: Callable[[Ledger, str, Study], int]
) -> None:
    begin(ledger, "empty", declared(trials=4))
    opened = page(ledger, "empty")
    assert "No winner yet" in opened.text
    assert "None of the 4 trials is complete with a finite value." in opened.text
    assert "No complete trial has a curve yet." in opened.text
    assert "4 waiting" in opened.text
    assert not opened.attributes("img", "src")


def test_a_study_without_a_single_trial_has_a_page(ledger: Ledger, page: OpenPage, declared: Declare) -> None:
    ledger.start_study("bare", declared(trials=1), "fingerprint")
    assert "No trials were planned." in page(ledger, "bare").text


def test_a_study_where_nothing_varies_has_a_page(
    ledger: Ledger, page: OpenPage, declared: Declare, begin: Callable[[Ledger, str, Study], int]
) -> None:
    begin(ledger, "fixed", declared(SearchSpace(learning_rate=0.1), trials=1))
    assert "No trial has finished yet, or nothing varies." in page(ledger, "fixed").text


def test_a_sweep_is_one_section_and_its_studies_are_none(whole_page: Any) -> None:
    opened = whole_page
    assert [anchor for anchor in opened.anchors if re.fullmatch(r"study-\d+", anchor)] == ["study-1", "study-2"]
    assert opened.anchors.count("budget") == 1
    contents = opened.html.partition("<nav")[2].partition("</nav>")[0]
    assert "sweep-1" not in contents
    assert "sweep-1" not in opened.html.partition("</nav>")[0]


def test_the_whole_campaign_stands_in_the_order_answer_evidence_story(whole_page: Any) -> None:
    names = ("summary", "final-model", "findings", "budget", "regime", "study-1", "study-2", "schedules", "provenance")
    order = [whole_page.anchors.index(name) for name in names]
    assert order == sorted(order)
    assert len(whole_page.anchors) == len(set(whole_page.anchors))
    assert {target[1:] for target in whole_page.attributes("a", "href")} <= set(whole_page.anchors)


def test_an_unknown_campaign_is_an_error(filled: Ledger, tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="digitz"):
        write_report(filled, "digitz", tmp_path / "page.html")
    assert not (tmp_path / "page.html").exists()


def test_the_page_is_written_whole_and_leaves_nothing_else_behind(
    ledger: Ledger, tmp_path: Path, declared: Declare
) -> None:
    ledger.start_study("bare", declared(trials=1), "fingerprint")
    target = tmp_path / "new" / "page.html"
    write_report(ledger, "bare", target)
    write_report(ledger, "bare", target)
    assert [path.name for path in target.parent.iterdir()] == ["page.html"]
    assert stat.S_IMODE(target.parent.stat().st_mode) == 0o700
    text = target.read_text(encoding="utf-8")
    assert text.startswith("<!doctype html>")
    assert text.rstrip().endswith("</html>")


def test_campaigns_whose_names_end_alike_have_pages_of_their_own(
    ledger: Ledger, tmp_path: Path, declared: Declare
) -> None:
    names = ("digits", "mine/digits", "../digits", "digits ")
    for name in names:
        ledger.start_study(name, declared(trials=1), "fingerprint")
        write_report(ledger, name, report_path(ledger, name))
    pages = {name: report_path(ledger, name) for name in names}
    assert pages["digits"].name == "digits.html"
    assert {page.parent for page in pages.values()} == {ledger.folder}
    assert sorted(ledger.folder.glob("*.html")) == sorted(pages.values())
    titles = [re.findall("<title>(.*?)</title>", page.read_text(encoding="utf-8")) for page in pages.values()]
    assert titles == [[f"{name} · tuning report"] for name in names]


def test_a_page_that_cannot_be_written_is_an_error_that_names_the_way_out(
    ledger: Ledger, tmp_path: Path, declared: Declare
) -> None:
    ledger.start_study("bare", declared(trials=1), "fingerprint")
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(InputError, match=r"file/page\.html: (File exists|Not a directory); name another file with -o"):
        write_report(ledger, "bare", tmp_path / "file" / "page.html")


def test_a_password_in_a_recorded_command_is_not_shown(ledger: Ledger, page: OpenPage, declared: Declare) -> None:
    study_id = ledger.start_study("bare", declared(trials=1), "fingerprint").study_id
    command = "tuner launch x.py --storage postgresql://me:hunter2@host/db --api-key=s3cr3t"
    ledger.add_launch(study_id, command=command, revision={}, environment={"versions": None}, worker="")
    opened = page(ledger, "bare")
    assert "hunter2" not in opened.html
    assert "s3cr3t" not in opened.html
    assert "postgresql://me:***@host/db" in opened.text


def test_nothing_is_written_as_nan(grown_page: Any) -> None:
    assert "nan" not in re.findall(r"[a-z]+", grown_page.text.lower())
