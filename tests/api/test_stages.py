"""Several campaigns of one file, or of one script, from Python."""

import pytest
from support.stage_files import NAMES, STEPS, write_stages

import tuner
from tuner import Campaign, Round, SearchSpace, best_of, log_uniform
from tuner.design.study_file import load_stages
from tuner.errors import DeclarationError, InputError, StorageError
from tuner.testing import check_engine

SEARCH = {"space": SearchSpace(learning_rate=log_uniform(1e-3, 1e-1)), "trials": 2}
QUICK = {"progress": False, "fuse": "off"}


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """The folder of a file whose stages were trained, and what `tuner.run` returned."""
    folder = tmp_path_factory.mktemp("stages")
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(folder)
        patched.delenv("TUNER_STORAGE", raising=False)
        text = write_stages(folder).read_text()
        (folder / "staged.py").write_text(text[: text.index("branch = ")])
        return folder, tuner.run("staged.py", **QUICK)


@pytest.fixture
def result(ran, monkeypatch):
    monkeypatch.chdir(ran[0])
    monkeypatch.delenv("TUNER_STORAGE", raising=False)
    return ran[1]


def test_a_file_is_run_stage_by_stage_and_all_results_are_there(result):
    assert [one.records.name for one in result.stages] == NAMES[:2]
    assert result.stages[-1] is result
    assert (result.complete, result.left) == (True, ())
    assert [one.best.inherited_steps for one in result.stages] == [0, result.stages[0].best.step]
    assert "started from trial" in repr(result.best)
    assert [line.partition(":")[0] for line in repr(result).splitlines() if "report:" in line] == [
        "pre", "head",
    ]  # fmt: skip


def test_a_name_behind_the_file_says_which_campaign_is_meant(result, caplog):
    assert tuner.load("staged.py:pretraining").name == "pre"
    assert tuner.load("staged.py:head:1").name == tuner.load("staged.py:head").name == "head:1"
    assert tuner.best("staged.py:pre").start is None
    assert [one.study.budget.max_train_steps for one in tuner.plan("staged.py:head").stages] == [STEPS["head:1"]]
    assert tuner.launch("staged.py:pre", **QUICK).states == {"complete": 2}
    assert "has 2 campaigns" not in caplog.text
    assert tuner.load("staged.py").name == "head:1"
    with pytest.raises(DeclarationError, match=r"declares no campaign 'haed'.* did you mean head"):
        tuner.load("staged.py:haed")


def test_campaigns_that_are_objects_are_trained_after_what_they_start_from(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    workloads = {one.name: one.campaign.workload for one in load_stages(write_stages(tmp_path))}
    first = Campaign(workloads["pre"], name="first", rounds=[Round("q", max_train_steps=6, **SEARCH)])
    second = Campaign(
        workloads["staged"], name="second", start_from=best_of(first, "encoder.*"),
        rounds=[Round("q", max_train_steps=4, **SEARCH)],
    )  # fmt: skip
    with pytest.raises(StorageError, match=r"starts from 'first'.* Train it first: tuner.run\(\.\.\.\) of it"):
        tuner.launch(second, **QUICK)
    result = tuner.run(second, **QUICK)
    assert [one.records.name for one in result.stages] == ["first", "second"]
    assert result.best.start.campaign == "first"
    with pytest.raises(InputError, match="needs a name"):
        tuner.run(Campaign(workloads["pre"], rounds=first.rounds), **QUICK)


def test_the_engine_of_one_stage_is_checked(result):
    assert check_engine("staged.py:pre").name == "Auto"
    assert check_engine("staged.py:head").name == "Few"
