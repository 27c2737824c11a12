"""What a person reads of a study whose loop has its own optimizer, batches and rates: every sentence is true."""

import html
import re

import pytest
from support.shell import run_in
from support.shown_loops import loop_study

import tuner as api
from tuner.plots.catalog import PLOTS
from tuner.storage.store import open_ledger

STORAGE = ("--storage", "records.sqlite")
NOT_SAID = ("adamw", "constant for", "constant_then_decay", "linear decay", "stacked model", "weight decay")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The folder of a study of two rounds, whose loop asks for no rate and reports one split of its metric."""
    folder = tmp_path_factory.mktemp("pages")
    study = loop_study(folder, follow="pass", space="dropout=uniform(0.0, 0.5)", trials=3)
    with pytest.MonkeyPatch.context() as patched:
        assert run_in(folder, patched, "run", study, "--yes", "-q", *STORAGE) == 0
    return folder


@pytest.fixture
def here(trained, tuner, monkeypatch):
    """What a command prints, as one line; in the folder of the trained study."""
    monkeypatch.chdir(trained)

    def printed(*words):
        ran = tuner(*words, *STORAGE)
        assert ran.code in (0, 3), ran.err
        return " ".join((ran.out + ran.err).split())

    return printed


def page_of(folder):
    """The text of the report, tags and pictures left out."""
    whole = re.sub(r"<(script|style)[^>]*>.*?</\1>", " ", (folder / "mine.html").read_text(), flags=re.DOTALL)
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", whole)).split())


def test_the_page_says_whose_the_optimizer_the_batches_and_the_rates_are(trained):
    page = page_of(trained)
    for fact in ("Schedule", "Optimizer", "Batch size"):
        assert page.count(f"{fact} that of the training loop") == 2, fact  # once a round
    assert "Schedules" not in page  # no section of rates that nobody knows
    for words in NOT_SAID:
        assert words not in page, words


def test_what_the_loop_says_of_itself_stands_on_the_page(tmp_path, tuner):
    loop_study(tmp_path, declared='batch_size = 8\n    num_examples = 50\n\n    def words(self):\n'
               '        return {"optimizer": "Adam of torch"}')  # fmt: skip
    assert tuner("launch", "mine.py", "--round", "1", "--trials", "2", "-q").code == 0
    assert tuner("report", "mine", "-o", "mine.html").code == 0
    page = page_of(tmp_path)
    assert "Optimizer Adam of torch" in page
    assert "Batch size 8" in page
    assert "Budget 60 steps (10 epochs)" in page
    assert "Schedule that of the training loop" not in page  # it follows the study's


def test_a_question_that_needs_what_the_loop_does_not_report_says_what_to_report(here):
    told = here("check", "mine.py")
    assert "training/loss was not recorded; report it beside validation/loss, at every evaluation" in told
    assert told.count("decides the learning rate of each step") == 3  # regime, warmup, and what follows from the loop
    assert "has not decayed its rate" not in told
    assert "There is no warmup" not in told


@pytest.mark.parametrize("command", ["status", "trials", "best", "best-steps", "boundaries", "conclusions", "check"])
def test_no_command_tells_of_an_optimizer_that_nobody_declared(here, command):
    told = here(command, "mine")
    for words in NOT_SAID:
        assert words not in told, words


def test_a_plan_prices_what_is_trained_and_speaks_of_no_stacked_models(here):
    told = here("run", "mine.py", "--dry-run")
    assert "--fuse" not in told
    assert "training_evaluation_examples" not in told
    assert "trials that train in several processes (--workers) take less" in told


NOTHING = {  # of this study, and why
    "schedules": "The learning rates of round-2 are those of the training itself, which are not recorded",
    "infeasible": "None of 4 finished trials is infeasible",
    "sweep": "no sweep",
    "budget-curve": "no budget curve",
    "stability": "no stability study",
}


@pytest.mark.parametrize("kind", [plot.name for plot in PLOTS if plot.name not in NOTHING])
def test_a_plot_is_drawn(here, trained, kind):
    here("plot", kind, "mine", "-o", f"{kind}.svg")
    assert "</svg>" in (trained / f"{kind}.svg").read_text()


@pytest.mark.parametrize("kind", list(NOTHING))
def test_a_plot_without_anything_to_show_says_why(trained, tuner, monkeypatch, kind):
    monkeypatch.chdir(trained)
    ran = tuner("plot", kind, "mine", "-o", f"{kind}.svg", *STORAGE)
    assert ran.code == 2
    assert NOTHING[kind] in " ".join(ran.err.split())


def test_what_is_written_can_be_read_again(here, trained):
    here("export", "mine", "--to", "csv", "tables")
    here("export", "mine", "--to", "optuna", "exported.db")
    here("import", "optuna", "exported.db", "--study", "again")
    with open_ledger(str(trained / "records.sqlite")) as ledger:
        mine = ledger.trials(ledger.study("mine", "round-2").study_id)
        (row,) = ledger.studies("again")
        again = ledger.trials(row.study_id)
    assert [dict(one.point) for one in again] == [dict(one.point) for one in mine]


def test_a_notebook_reads_the_records(trained):
    records = api.load("mine", str(trained / "records.sqlite"))
    frames = records.frames(round=2)
    assert frames.study.optimizer is None
    assert frames.study.batch_size == 0
    assert frames.schedules == {}
    assert not frames.promises.follows_schedule
    assert "dropout" in repr(records.best())
