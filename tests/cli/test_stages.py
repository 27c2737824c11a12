"""Several campaigns of one study file on the command line: their order, their names, and what is said of them."""

import json
import re
import shlex
import signal
import subprocess
import sys

import pytest
from support.records import CURVES, rows
from support.shell import run_in
from support.stage_files import NAMES, STEPS, write_stages
from support.study_files import write_study

from tuner.cli.commands import COMMANDS
from tuner.cli.options import loaded

QUICK = ("-q", "--fuse", "off")
SWEPT = """sweep=Sweep(learning_rate=(0.001, 0.01, 0.1), start_steps=40, max_steps=40, seeds=1), rounds=[
    Round("q", trials=2, space=SPACE)]"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder in which all stages of the file were trained, without their reports."""
    folder = tmp_path_factory.mktemp("stages")
    write_stages(folder)
    with pytest.MonkeyPatch.context() as patched:
        for name in NAMES:
            assert run_in(folder, patched, "launch", f"staged.py:{name}", *QUICK) == 0
    return folder


@pytest.fixture
def here(trained, monkeypatch, tuner):
    """The command line in that folder; what it is given there writes nothing that another test reads."""
    monkeypatch.chdir(trained)
    return tuner


@pytest.fixture
def fresh(tmp_path, tuner):
    """The command line beside a study file of which nothing was trained."""
    write_stages(tmp_path)
    return tuner


def best_step(run, campaign):
    return json.loads(run("best", campaign, "-f", "json").out)["best_step"]


@pytest.mark.slow
def test_all_stages_are_trained_in_their_order_and_told_as_one(trained, here):
    again = here("run", "staged.py", *QUICK)
    assert again.code == 0, again.err
    told = [line for line in again.err.splitlines() if line.startswith("stage ")]
    assert told == [
        "stage 1 of 4: pre",
        "stage 2 of 4: head:1, starts from pre",
        "stage 3 of 4: staged-branch, starts from pre",
        "stage 4 of 4: staged, starts from head:1",
    ]
    assert rows(trained, "select count(*) from launch") == [(4,)], "what is finished is not launched again"
    pre, head = best_step(here, "pre"), best_step(here, "head:1")
    behind = {"pre": 0, "head:1": pre, "staged-branch": pre, "staged": pre + head}
    for name in NAMES:
        (row,) = [line for line in again.out.splitlines() if re.match(rf"{name} +(-|trial)", line)]
        assert row.split()[-4:] == [str(one) for one in (2 * STEPS[name], STEPS[name], behind[name],
                                                         behind[name] + STEPS[name])]  # fmt: skip
    assert re.search(r"^all +112 *$", again.out, re.MULTILINE), "2 (20 + 16 + 8 + 12) steps"
    assert "note: staged.py has" not in again.err


@pytest.mark.slow
def test_a_stage_that_is_named_is_trained_after_what_it_starts_from_and_nothing_else(fresh, tmp_path):
    run = fresh("run", "staged.py:head", *QUICK)
    assert run.code == 0, run.err
    assert [name for (name,) in rows(tmp_path, "select name from campaign order by id")] == ["pre", "head:1"]


def test_without_a_name_the_last_stage_is_meant_and_it_is_said(here, trained, caplog):
    (trained / "again").mkdir(exist_ok=True)
    write_stages(trained / "again")  # a note is given once for a file
    asked = here("trials", "again/staged.py", "-f", "json")
    assert asked.out == here("trials", "staged", "-f", "json").out
    note = (
        "note: again/staged.py has 4 campaigns; without a name its last stage is meant, staged. The others: "
        "again/staged.py:pre, again/staged.py:head:1, again/staged.py:staged-branch"
    )
    assert [one.getMessage() for one in caplog.records if "has 4 campaigns" in one.getMessage()] == [note]
    here("best", "again/staged.py")
    assert caplog.text.count("has 4 campaigns") == 1


def test_nothing_is_said_of_a_file_with_one_campaign_and_it_is_not_even_run(here, trained, caplog):
    write_study(trained)
    assert here("launch", "tiny.py", "--trials", 1, "--max-train-steps", 2, *QUICK).code == 0
    text = (trained / "tiny.py").read_text()
    (trained / "tiny.py").write_text(f"raise RuntimeError\n{text}")
    assert here("trials", "tiny.py").code == 0
    assert "campaigns" not in caplog.text


@pytest.mark.slow
def test_the_note_stands_on_stderr(here):
    done = subprocess.run(
        [sys.executable, "-m", "tuner", "trials", "staged.py", "-f", "json"], capture_output=True, text=True, check=True
    )
    (note,) = done.stderr.splitlines()
    assert note.startswith("note: staged.py has 4 campaigns; without a name its last stage is meant, staged.")
    assert json.loads(done.stdout) == json.loads(here("trials", "staged", "-f", "json").out)


# What each command needs besides the study.
MORE = {
    "run": ["--dry-run"],
    "plan": [],
    "launch": ["--dry-run"],
    "exploit": ["--dry-run", "--trials", "2", "--although", "x"],
    "budget-curve": ["--dry-run", "--lengths", "20,40,60"],
    "stability": ["--dry-run"],
    "worker": ["-q"],
    "status": [],
    "check": [],
    "best-steps": [],
    "boundaries": [],
    "trials": [],
    "conclusions": [],
    "plot": ["-o", "axes.png"],
    "report": ["-o", "page.html"],
    "best": [],
    "adopt": ["--dry-run", "--candidate", "1/0", "--baseline", "1/1"],
    "adoptions": [],
    "score-test": [],
    "export": ["--to", "csv", "tables"],
    "verify": [],
    "replay": ["-t", "0"],
}
ELSEWHERE = {"sweep", "import optuna", "import table"}  # asked below; their study is a new name


def test_every_command_that_takes_a_study_is_asked_here():
    takes = {one.name for one in COMMANDS if "study" in getattr(loaded(one.options), "__dataclass_fields__", ())}
    assert takes == {*MORE, *ELSEWHERE}


@pytest.mark.parametrize("name", list(MORE))
def test_every_command_takes_a_file_with_a_name(name, here):
    before = ["axes"] if name == "plot" else []
    run = here(name, *before, "staged.py:pretraining", *MORE[name])
    assert run.code in (0, 3), run.err
    assert "has 4 campaigns" not in run.err
    told = run.out + run.err
    assert not re.search(r"\bstaged[- ]|head:1 ", told.replace("staged.py", "")), told
    assert not re.search(r"staged\.py(?!:pre)", told), "a command without a name would be about another campaign"


def test_the_commands_that_are_shown_are_about_the_same_campaign(fresh):
    launched = fresh("launch", "staged.py:pre", *QUICK)
    best = fresh("best", "pre", "-f", "json")
    again = json.loads(best.out)["reproduce"]
    assert again.startswith("tuner replay staged.py:pre --round 1")
    commands = [*re.findall(r"^next: tuner (.*)$", launched.err, re.MULTILINE), again.removeprefix("tuner ")]
    assert len(commands) == 3
    for command in commands:
        run = fresh(*shlex.split(command))
        assert run.code in (0, 3), run.err
        assert " pre" in f" {run.out}{run.err}" or "same bits" in run.err
    asked = fresh("best", "staged.py", "-f", "json")
    assert (asked.code, "staged.py:staged was not launched" in asked.err) == (2, True)
    assert "tuner launch staged.py:staged --round 1" in asked.err


@pytest.mark.parametrize(
    "command",
    ["launch staged.py", "launch staged.py:head", "sweep staged.py:branch", "exploit staged.py",
     "budget-curve staged.py", "stability staged.py", "adopt staged.py"],
)  # fmt: skip
def test_a_stage_whose_source_is_not_trained_is_one_error_with_the_command(command, fresh, tmp_path):
    write_study(tmp_path, steps=2, trials=1)
    assert fresh("launch", "tiny.py", *QUICK).code == 0, "so that a storage is there"
    run = fresh(*command.split())
    assert (run.code, rows(tmp_path, "select name from campaign")) == (2, [("tiny",)])
    (error,) = [line for line in run.err.splitlines() if line.startswith("error: ")]
    needed = "pre" if re.search("head|branch", command) else "head:1"
    assert error.endswith(f"Train it first: tuner run staged.py:{needed}")


def test_a_source_of_which_a_round_is_missing_is_not_finished(tmp_path, tuner):
    write_stages(
        tmp_path, ("rounds=search(20))", 'rounds=[*search(20), Round("longer", promote=1, max_train_steps=30)])')
    )
    assert tuner("launch", "staged.py:pre", *QUICK).code == 0
    run = tuner("launch", "staged.py:head", *QUICK)
    assert run.code == 2
    assert "'pre' is not finished: 1 of 2 rounds were launched" in run.err
    assert run.err.rstrip().endswith("train it first: tuner run staged.py:pre")


@pytest.mark.slow
def test_a_question_stops_the_chain_and_yes_goes_through(tmp_path, tuner):
    path = write_stages(tmp_path, ("rounds=search(20)", SWEPT))
    run = tuner("run", path.name, *QUICK)
    assert run.code == 3, run.err
    assert "question: The sweep's grid ends too early" in run.err
    assert "not begun until its question is answered: head:1, staged-branch, staged" in run.err
    assert "Run `tuner sweep staged.py:pre --extend`" in run.err, "a command about the stage that asks"
    assert "next: tuner run staged.py --yes" in run.err
    assert rows(tmp_path, "select name from campaign") == [("pre",)]
    assert tuner("run", "staged.py:branch", *QUICK).code == 3, "the stage before has an open question"
    assert rows(tmp_path, "select name from campaign") == [("pre",)]
    gone_on = tuner("run", path.name, "--yes", *QUICK)
    assert gone_on.code == 0, gone_on.err
    assert [name for (name,) in rows(tmp_path, "select name from campaign order by id")] == NAMES


@pytest.mark.slow
def test_failed_trials_stop_the_chain(fresh, tmp_path):
    (tmp_path / "broken").touch()
    run = fresh("run", "staged.py", *QUICK)
    assert run.code == 4, run.err
    assert "not begun until its failed trials are trained: head:1, staged-branch, staged" in run.err
    assert rows(tmp_path, "select name from campaign") == [("pre",)]
    (tmp_path / "broken").unlink()
    assert fresh("run", "staged.py", *QUICK).code == 4, "without --retry-failed they stay failed"
    mended = fresh("run", "staged.py", "--retry-failed", *QUICK)
    assert mended.code == 0, mended.err
    assert [name for (name,) in rows(tmp_path, "select name from campaign order by id")] == NAMES


@pytest.mark.slow
def test_an_interrupted_chain_goes_on_and_ends_in_the_same_bits(trained, fresh, tmp_path):
    (tmp_path / "interrupt").touch()
    command = [sys.executable, "-m", "tuner", "run", "staged.py", *QUICK]
    cut = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert cut.returncode == 130, cut.stderr
    assert rows(tmp_path, "select count(*) from trial where state = 'complete'") == [(2,)], "those of pre"
    assert fresh("run", "staged.py", *QUICK).code == 0
    assert rows(tmp_path, CURVES) == rows(trained, CURVES)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_dry_run_prices_each_stage_and_all_of_them(fresh, tmp_path, caplog):
    for command in (["run", "staged.py", "--dry-run"], ["plan", "staged.py"]):
        run = fresh(*command)
        assert run.code == 0, run.err
        assert re.findall(r"^stage \d of 4: (\S+?),? ", run.out.replace("pre\n", "pre \n"), re.MULTILINE) == NAMES
        tail = run.out[run.out.index("all stages") :]
        table = {line.split()[0]: line for line in tail.splitlines()[2:]}
        assert re.search(r"^pre +- +0 +2 +40 ", table["pre"])
        assert re.search(r"^head:1 +pre +about 20 +2 +32 ", table["head:1"])
        assert re.search(r"^staged +head:1 +about 36 +2 +24 ", table["staged"])
        assert re.search(r"^all +8 +112 ", table["all"])
        fresh_models = "which has not selected its weights yet: until then its steps are priced with the weights of a"
        assert caplog.text.count(fresh_models) == 3
        caplog.clear()
    assert not (tmp_path / "runs").exists()


def test_a_dry_run_after_the_training_knows_what_is_inherited(here):
    run = here("run", "staged.py", "--dry-run")
    pre, trial = best_step(here, "pre"), winner(here, "pre")
    assert re.search(rf"^head:1 +pre +{pre} +0 +0 ", run.out, re.MULTILINE)
    assert re.search(
        rf"^head:1 starts from trial {trial} of pre round-1 at step {pre}.*; {pre} inherited", run.err, re.M
    )


def winner(run, campaign):
    return json.loads(run("best", campaign, "-f", "json").out)["trial"]


def test_status_shows_who_starts_from_whom(here):
    pre, head = best_step(here, "pre"), best_step(here, "head:1")
    first, second = winner(here, "pre"), winner(here, "head:1")
    lines = [
        f"head:1 started from trial {first} of pre round-1 at step {pre}; {pre} inherited steps",
        f"staged-branch started from trial {first} of pre round-1 at step {pre}; {pre} inherited steps",
        f"staged started from trial {second} of head:1 round-1 at step {head}; {pre + head} inherited steps",
    ]
    assert sorted(here("status").err.splitlines()) == sorted(lines)
    of_file, of_stage = here("status", "staged.py"), here("status", "staged.py:head")
    assert of_file.err.splitlines() == lines
    assert re.search(r"^all +112 *$", of_file.out, re.MULTILINE)
    assert of_stage.err.splitlines() == lines[:1]
    told = json.loads(here("status", "staged.py", "-f", "json").out)
    assert [(one["campaign"], one["inherited_steps"]) for one in told] == list(
        zip(NAMES, [0, pre, pre, pre + head], strict=True)
    )
    assert told[0]["starts_from"] == ""
    assert told[1]["starts_from"] == f"trial {first} of pre round-1 at step {pre}"


def test_status_of_a_file_names_what_was_not_launched(fresh):
    assert fresh("launch", "staged.py:pre", *QUICK).code == 0
    run = fresh("status", "staged.py")
    assert run.code == 0
    assert run.err.splitlines() == [
        "not launched yet: head:1, starts from pre",
        "not launched yet: staged-branch, starts from pre",
        "not launched yet: staged, starts from head:1",
    ]


def test_best_says_where_the_weights_started(here):
    told = json.loads(here("best", "staged", "-f", "json").out)
    pre, head, own = best_step(here, "pre"), best_step(here, "head:1"), told["best_step"]
    assert told["inherited_steps"] == told["starts_from"]["steps"] == pre + head
    assert (told["starts_from"]["campaign"], told["starts_from"]["step"]) == ("head:1", head)
    shown = here("best", "staged").out
    assert f"{pre + head} inherited steps and {own} of its own, {pre + head + own} in all" in shown
    first = json.loads(here("best", "pre", "-f", "json").out)
    assert (first["starts_from"], first["inherited_steps"]) == (None, 0)
    assert "started from" not in here("best", "pre").out


def test_the_report_of_a_stage_shows_its_chain_and_links_to_what_is_there(trained, here):
    assert here("report", "pre").code == here("report", "staged").code == 0
    page = (trained / "runs" / "staged.html").read_text()
    section = page[page.index('<section id="stages">') :].partition("</section>")[0]
    assert "pre.html" in re.findall(r'href="([^"]*)"', section)
    cells = [re.findall(r"<t[dh][^>]*>(?:<a[^>]*>)?(.*?)(?:</a>)?</t[dh]>", row) for row in section.split("<tr>")[2:]]
    assert [row[0] for row in cells] == ["pre", "head:1", "staged", "all"]
    assert [row[2] for row in cells] == ["40", "32", "24", "96"]
    assert "Start from this one" in (trained / "runs" / "pre.html").read_text()


def test_an_edit_of_one_workload_leaves_the_other_stages_as_they_are(fresh, tmp_path):
    for stage in ("pre", "branch"):
        assert fresh("launch", f"staged.py:{stage}", *QUICK).code == 0

    def launched(stage, *replaced):
        write_stages(tmp_path, *replaced)
        return fresh("launch", f"staged.py:{stage}", "--trials", 3, *QUICK)

    theirs = ("return x + 0.0", "return x + 0.1")
    assert launched("branch", theirs).code == 0, "the helper of the pretraining's workload"
    changed = launched("pre", theirs)
    assert (changed.code, "function noisy changed" in changed.err) == (2, True)
    mine = ("F.cross_entropy(logits", "1.0 * F.cross_entropy(logits")
    assert launched("pre", mine).code == 0
    assert launched("branch", mine).code == 2
    shared = ("manual_seed(0)", "manual_seed(0 + 0)")
    assert [launched(stage, shared).code for stage in ("pre", "branch")] == [2, 2]


@pytest.mark.slow
def test_campaigns_that_have_nothing_to_do_with_each_other_are_trained_one_after_the_other(tmp_path, tuner):
    path = write_stages(tmp_path)
    text = path.read_text()
    for cut in (', start_from=best_of(pretraining, "encoder.*")', ", start_from=best_of(head)"):
        text = text.replace(cut, "")
    path.write_text(text)
    run = tuner("run", path.name, *QUICK)
    assert run.code == 0, run.err
    assert [name for (name,) in rows(tmp_path, "select name from campaign order by id")] == NAMES
    assert "starts from" not in run.err


@pytest.mark.slow
def test_workers_train_the_stage_that_is_named(trained, fresh, tmp_path):
    assert fresh("run", "staged.py:head", "--workers", 2, *QUICK).code == 0
    mine = rows(tmp_path, CURVES)
    names = "select count(*) from trial"
    assert rows(tmp_path, names) == [(4,)]
    assert set(mine) < set(rows(trained, CURVES))


def test_a_trial_of_a_later_stage_is_replayed_and_scored_from_the_weights_it_started_from(here):
    again = here("replay", "staged.py", "-t", "0")
    assert (again.code, ", 0 differ" in again.out) == (0, True), again.err
    scored = here("score-test", "staged.py", "-f", "json")
    assert scored.code == 0, scored.err
    assert json.loads(scored.out)["metrics"]["test/loss"] > 0
