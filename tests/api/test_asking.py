"""Ask and tell: what a script asks for is what a launch would train, and what it tells is judged as ever."""

import json
import math
import os
import signal
import threading
from contextlib import contextmanager, suppress

import pandas as pd
import pytest
import torch
import torch.nn.functional as F

import tuner
from tuner import Campaign, OwnLoop, Round, SearchSpace, Sweep, Workload, at_most, log_uniform, minimize, uniform
from tuner.errors import (
    DeclarationError,
    InputError,
    LeaseLost,
    StorageError,
    StudyChanged,
    TrialsFailed,
    WorkloadError,
)
from tuner.storage.store import open_ledger
from tuner.storage.verify import study_problems

LOSS = "validation/loss"


def clouds():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(80, 6, generator=generator)
    return x, (x[:, 0] + 0.5 * x[:, 1] > 0).long()


def steps_of_training(trial):
    """Train a small network on two clouds, and give (updates made, metrics) where an evaluation is due."""
    x, y = clouds()
    torch.manual_seed(trial.seed % 2**32)
    drop = 0.0 if trial.regularization_off else float(trial.point["dropout"])
    model = torch.nn.Sequential(torch.nn.Linear(6, 16), torch.nn.ReLU(), torch.nn.Dropout(drop), torch.nn.Linear(16, 2))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    yield model, optimizer
    for step in range(trial.max_train_steps):
        rows = torch.randint(50, (8,))
        optimizer.param_groups[0]["lr"] = trial.rate(step)
        optimizer.zero_grad()
        F.cross_entropy(model.train()(x[rows]), y[rows]).backward()
        optimizer.step()
        if trial.evaluates(step):
            with torch.no_grad():
                logits = model.eval()(x)
            yield (
                step + 1,
                {
                    LOSS: F.cross_entropy(logits[50:], y[50:]).item(),
                    "training/error_rate": (logits[:50].argmax(1) != y[:50]).double().mean().item(),
                },
            )
        else:
            yield step + 1, None


def trained(trial):
    training = steps_of_training(trial)
    next(training)
    return [(step, metrics) for step, metrics in training if metrics]


class Launched(OwnLoop):
    """The same training, by `tuner launch`."""

    select_by = minimize(LOSS)
    fitted_when = at_most("training/error_rate", 0.0)

    def train(self, trial):
        training = steps_of_training(trial)
        model, optimizer = next(training)
        trial.keep(model=model, optimizer=optimizer)
        for _ in trial.steps():
            _, metrics = next(training)
            if metrics:
                trial.report(metrics)


def declared(workload=None, name="told", trials=4, steps=20, **changes):
    space = SearchSpace(learning_rate=log_uniform(1e-2, 1.0), dropout=uniform(0.0, 0.5, limits="low"))
    asked = OwnLoop(select_by=minimize(LOSS), fitted_when=at_most("training/error_rate", 0.0))
    rounds = [Round("a test", trials=trials, max_train_steps=steps, space=space), Round("again", promote=2)]
    return Campaign(workload or asked, **({"name": name, "rounds": rounds, "evaluations": 4} | changes))


def well(trial, metric=LOSS):
    """A curve that falls towards the distance from the best rate."""
    off = abs(math.log10(trial.point["learning_rate"] / 0.1))
    return {metric: {step: off + 1 / step for step in trial.evaluation_steps}}


@pytest.fixture(autouse=True)
def apart(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TUNER_STORAGE", raising=False)


def states(name="told", study="round-1"):
    with open_ledger("runs/tuner.sqlite", create=False) as ledger:
        row = ledger.study(name, study)
        return [record.state.value for record in ledger.trials(row.study_id)]


def test_what_is_asked_and_told_is_what_a_launch_records_and_finds():
    own = declared(Launched(), "launched", schedule=tuner.cosine(), evaluations=20, trials=6, steps=40)
    asked = declared(schedule=tuner.cosine(), evaluations=20, trials=6, steps=40)
    for number in (1, 2):
        tuner.launch(own, number, progress=False)
        with tuner.asking(asked, number, follows_schedule=True) as study:
            for trial in study:
                assert study.tell(trial, trained(trial)) == "complete"
        one, other = (tuner.load(name).frames(round=number) for name in ("launched", "told"))
        assert one.trials["seed"].nunique() > 1
        assert other.trials["numerics"].isna().all(), "where a script trains is not known"
        pd.testing.assert_frame_equal(*(frames.trials.drop(columns="numerics") for frames in (one, other)))
        order = ["trial", "step", "metric"]
        curves = [frames.curves.sort_values(order).reset_index(drop=True) for frames in (one, other)]
        pd.testing.assert_frame_equal(*curves)
    found = [[(one.question, one.verdict) for one in tuner.check(name)] for name in ("launched", "told")]
    assert found[0] == found[1]
    assert len(found[0]) > 5


def test_a_sweep_that_is_asked_for_finds_what_a_launched_one_finds():
    sweep = Sweep(learning_rate=(0.01, 0.1, 1.0), start_steps=100, max_steps=200, seeds=1)
    with pytest.raises(InputError, match=r"trial\.rate\(step\), and say tuner\.asking"):
        tuner.asking(declared(sweep=sweep), sweep=True).__enter__()
    outcome = tuner.sweep(declared(Launched(), "launched", sweep=sweep), progress=False).outcome
    for _ in range(2):  # the second time nothing is left
        with tuner.asking(declared(sweep=sweep), sweep=True, follows_schedule=True) as study:
            numbers = [(trial.study, study.tell(trial, trained(trial)).value) for trial in study]
        assert study.outcome == outcome
    assert numbers == []


def test_the_whole_playbook_can_be_asked_for():
    sweep = Sweep(learning_rate=(0.01, 0.1, 1.0), start_steps=100, max_steps=200, seeds=1)
    rounds = [Round("a test", trials=4, space=declared().rounds[0].space), Round("again", promote=2)]
    campaign = declared(sweep=sweep, rounds=rounds)
    with tuner.asking(campaign, None, yes=True, follows_schedule=True) as study:
        studies = [(trial.study, study.tell(trial, trained(trial)))[0] for trial in study]
    assert list(dict.fromkeys(one.partition("-")[0] for one in studies)) == ["sweep", "round"]
    assert {"round-1", "round-2"} <= set(studies)
    assert study.outcome is None
    assert any("round 2: again" in note for note in study.notes)


def test_a_trial_says_all_that_its_training_needs():
    with tuner.asking(declared(schedule=tuner.linear())) as study:
        assert (study.name, study.left) == ("round-1", 4)
        trial = study.ask()
        assert set(trial.point) == {"learning_rate", "dropout"}
        assert (trial.max_train_steps, trial.evaluation_steps) == (20, (5, 10, 15, 20))
        assert [step for step in range(20) if trial.evaluates(step)] == [4, 9, 14, 19]
        assert trial.rate(0) == trial.point["learning_rate"] > trial.rate(19) > 0
        assert trial.rates == tuple(map(trial.rate, range(20)))
        sent = json.loads(json.dumps(trial.as_dict()))
        assert (sent["seed"], sent["rates"][3]) == (trial.seed, trial.rate(3))
        assert study.ask().data_seed == trial.data_seed, "all trials see the examples in one order (D42)"
        assert 0 <= trial.seed < 2**32, "as numpy.random.seed takes them"
        assert repr(trial).startswith("trial 0 of round-1: learning_rate=")
        for name, words in (
            ("suggest_float", "SearchSpace"),
            ("params", r"trial\.point"),
            ("report", r"study\.report"),
        ):
            with pytest.raises(AttributeError, match=words):
                getattr(trial, name)


LAST = {5: 0.5, 10: 0.4, 15: 0.3, 20: 0.2}
FRAME = pd.DataFrame({"step": list(LAST), LOSS: list(LAST.values())})
SHAPES = {
    "by metric": {LOSS: LAST},
    "by metric, pairs": {LOSS: list(LAST.items())},
    "by step": LAST,
    "pairs": list(LAST.items()),
    "by step and metric": {step: {LOSS: value} for step, value in LAST.items()},
    "rows": [{"step": step, LOSS: value} for step, value in LAST.items()],
    "a log": [(step, {LOSS: torch.tensor(value, dtype=torch.float64)}) for step, value in LAST.items()],
    "JSON": json.loads(json.dumps({LOSS: LAST})),
    "a frame": FRAME,
    "an index": FRAME.set_index("step"),
    "a series": FRAME.set_index("step")[LOSS],
    "a frame with gaps": pd.concat([FRAME, pd.DataFrame({"step": [20], "training/loss": [0.1]})]),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_a_curve_is_taken_as_people_have_it(shape):
    with tuner.asking(declared()) as study:
        study.tell(study.ask(), SHAPES[shape])
    curves = tuner.load("told").frames(round=1).curves
    selected = curves[curves["metric"] == LOSS]
    assert dict(zip(selected["step"], selected["value"], strict=True)) == LAST


def test_one_number_is_a_curve_where_there_is_one_evaluation():
    with tuner.asking(declared(evaluations=1)) as study:
        assert study.tell(study.ask(), 0.25) == "complete"
    with tuner.asking(declared(name="more")) as study, pytest.raises(WorkloadError, match="5, 10, 15 and 20 updates"):
        study.tell(study.ask(), 0.25)


WRONG: dict[str, tuple[object, str]] = {
    "not to the end": ({5: 0.5, 10: 0.4}, r"not told after 15 and 20 updates.*infeasible="),
    "a gap": ({5: 0.5, 10: 0.4, 20: 0.2}, "not told after 15 updates"),
    "nothing": ([], "nothing is told"),
    "none": (None, "nothing is told"),
    "from zero": ({step - 1: value for step, value in LAST.items()}, "one less each"),
    "denser": (dict.fromkeys(range(1, 21), 0.1), "compared after 5, 10, 15 and 20"),
    "beyond the end": ({**LAST, 25: 0.1}, "told after 25 updates"),
    "another metric": ({"validation/error": LAST}, r"reads 'validation/loss', and 'validation/error' is told"),
    "a misspelt split": ({"val/loss": LAST}, "did you mean validation/loss"),
    "the test split": ({"test/loss": LAST}, "never selects"),
    "no name": ({"loss": LAST}, "no name of a metric"),
    "no number": ({LOSS: {**LAST, 20: "low"}}, "'low', which is no number"),
    "no steps": ({LOSS: [0.5, 0.4, 0.3, 0.2]}, "a row of it is 0.5"),
    "text": ("0.2", "a curve is"),
    "half a step": ([*LAST.items(), (2.5, 0.1)], "whole number of updates, got 2.5"),
    "several steps at once": ([*LAST.items(), (torch.tensor([5, 10]), 0.1)], "whole number of updates, got tensor"),
    "twice": ([*LAST.items(), (20, 0.1)], "told twice after 20"),
    "a frame without steps": (pd.DataFrame({"epoch": [1], LOSS: [0.1]}), 'no column or index "step"'),
    "rows without steps": ([{LOSS: 0.1}], 'no "step"'),
    "an object": (object(), "got a object"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_curve_is_refused_and_can_be_told_again(case):
    told, words = WRONG[case]
    with tuner.asking(declared()) as study:
        trial = study.ask()
        with pytest.raises(WorkloadError, match=words):
            study.tell(trial, told)
        assert states()[0] == "running"
        assert study.tell(trial, LAST) == "complete"


def test_a_trial_ends_as_its_curve_says():
    endings = []
    with tuner.asking(declared(trials=6)) as study:
        endings.append(study.tell(study.ask(), {5: 0.5, 10: math.nan}))
        endings.append(study.tell(study.ask(), dict.fromkeys(LAST, math.inf)))
        endings.append(study.tell(study.ask(), {5: 0.5}, infeasible="out of memory"))
        endings.append(study.tell(study.ask(), failed="the node went away"))
        endings.append(study.tell(study.ask(), {**LAST, 10: math.inf}))
        last = study.ask()
        with pytest.raises(InputError, match="say one of them"):
            study.tell(last, LAST, infeasible="a", failed="b")
    assert endings == ["infeasible", "infeasible", "infeasible", "failed", "complete"]
    trials = tuner.load("told").frames(round=1).trials
    reasons = trials["reason"].tolist()
    assert reasons[0] == "diverged: validation/loss is nan at step 10"
    assert reasons[1:4] == [
        "validation/loss was not finite at any evaluation", "out of memory", "the node went away",
    ]  # fmt: skip
    assert states()[5] == "waiting"


def test_failed_trials_are_tried_again_when_that_is_said():
    with tuner.asking(declared()) as study:
        study.tell(study.ask(), failed="the node went away")
        study.tell(study.ask(), failed="the node went away")
        with pytest.raises(TrialsFailed, match="3 trials in a row failed alike"):
            study.tell(study.ask(), failed="the node went away")
    assert states() == ["failed", "failed", "failed", "waiting"]
    with tuner.asking(declared()) as study:
        assert [trial.number for trial in study if study.tell(trial, well(trial))] == [3]
    with tuner.asking(declared(), retry_failed=True) as study:
        assert [trial.number for trial in study if study.tell(trial, well(trial))] == [0, 1, 2]
    assert states() == ["complete"] * 4


def test_a_trial_that_is_not_out_is_not_told():
    with tuner.asking(declared()) as study:
        trial = study.ask()
        study.tell(trial, well(trial))
        with pytest.raises(InputError, match="trial 0 of round-1 was told already: it is complete"):
            study.tell(trial, well(trial))
        with pytest.raises(InputError, match="trial 3 is not out"):
            study.tell(3, LAST)
        with pytest.raises(InputError, match="tell a trial that"):
            study.tell("0", LAST)
        with tuner.asking(declared(name="another")) as other, pytest.raises(InputError, match="not asked for in this"):
            study.tell(other.ask(), LAST)
        left = study.ask()
    with pytest.raises(InputError, match=r"block of tuner\.asking has ended"):
        study.tell(left, well(left))
    assert states() == ["complete", "waiting", "waiting", "waiting"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_error_in_the_block_gives_back_what_was_not_told(error):
    def work():
        with tuner.asking(declared()) as study:
            first, _ = study.ask(), study.ask()
            study.tell(first, well(first))
            raise error

    with pytest.raises(error):
        work()
    assert states() == ["complete", "waiting", "waiting", "waiting"]
    with open_ledger("runs/tuner.sqlite", create=False) as ledger:
        row = ledger.study("told", "round-1")
        assert [one.attempt for one in ledger.trials(row.study_id)] == [1, 0, 0, 0], "a release is no attempt"


def test_what_is_reported_is_durable_and_need_not_be_told_again():
    with tuner.asking(declared()) as study:
        trial = study.ask()
        study.report(trial, 5, 0.5)
        study.report(trial, 5, {"training/loss": 0.7})
        study.report(trial.number, 10, {LOSS: 0.4})
        frames = tuner.load("told").frames(round=1)
        assert frames.curves.sort_values("step")["value"].tolist() in ([0.5, 0.7, 0.4], [0.7, 0.5, 0.4])
        for step, value, words in (
            (7, 0.1, "compared after"), (5, 0.1, "go forward"), (10, 0.1, "reported as 0.4, and is told as 0.1"),
        ):  # fmt: skip
            with pytest.raises(WorkloadError, match=words):
                study.report(trial, step, value)
        with pytest.raises(WorkloadError, match=r"reported as 0\.4"):
            study.tell(trial, {**LAST, 10: 0.35})
        assert study.tell(trial, {15: 0.3, 20: 0.2}) == "complete"
        second = study.ask()
        for step, value in LAST.items():
            study.report(second, step, value)
        assert study.tell(second) == "complete"
    curves = tuner.load("told").frames(round=1).curves
    assert [len(curves[(curves["metric"] == LOSS) & (curves["trial"] == number)]) for number in (0, 1)] == [4, 4]


def test_a_trial_that_another_process_took_is_not_written_twice():
    with tuner.asking(declared(trials=1)) as study:
        trial = study.ask()
        with open_ledger("runs/tuner.sqlite", create=False) as ledger:
            row = ledger.study("told", "round-1")
            ledger.release([trial.claim])
            (theirs,) = ledger.claim(row.study_id, worker="another", lease_seconds=100.0)
            with pytest.raises(LeaseLost, match="trial 0 of round-1 was handed to another process"):
                study.tell(trial, LAST)
            assert tuner.load("told").frames(round=1).curves.empty
            assert study.ask() is None
            assert study.left == 1
            ledger.release([theirs])
        again = study.ask()
        assert again.number == 0
        assert study.tell(again, LAST) == "complete"
        assert (study.ask(), study.left, study.name) == (None, 0, "")


def test_nothing_is_handed_out_while_the_own_trials_are_out():
    with tuner.asking(declared()) as study:
        batch = list(study)  # four at once: a person who trains them together
        assert [trial.number for trial in batch] == [0, 1, 2, 3]
        assert study.ask(wait=True) is None
        assert study.left == 4
        for trial in reversed(batch):
            study.tell(trial, well(trial))
    assert states() == ["complete"] * 4


def test_threads_share_a_study():
    told = []

    def work(study):
        while (trial := study.ask()) is not None:
            study.tell(trial, well(trial))
            told.append(trial.number)

    with tuner.asking(declared(trials=12)) as study:
        threads = [threading.Thread(target=work, args=(study,)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sorted(told) == list(range(12))
    assert states() == ["complete"] * 12


@contextmanager
def another_process(work):
    """A forked process, quick to start, that opens the study itself; gives its id and the lines that it writes."""
    reading, writing = os.pipe()
    process = os.fork()
    if not process:
        os.close(reading)
        with os.fdopen(writing, "w") as out, suppress(BaseException):
            work(lambda word: print(word, file=out, flush=True))
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as lines:
        yield process, lines
    os.waitpid(process, 0)


def ask_and_hang(say):
    with tuner.asking(declared()) as study:
        trials = [study.ask(), study.ask()]
        study.report(trials[0], 5, 0.5)
        say("asked")
        signal.pause()


def ask_all(say):
    with tuner.asking(declared(trials=40)) as study:
        for trial in study:
            study.tell(trial, well(trial))
            say(trial.number)


def test_the_trials_of_a_killed_process_come_back():
    with another_process(ask_and_hang) as (process, lines):
        assert lines.readline() == "asked\n"
        assert states() == ["running", "running", "waiting", "waiting"]
        assert len(tuner.load("told").frames(round=1).curves) == 1
        os.kill(process, signal.SIGKILL)
    with tuner.asking(declared()) as study:
        assert [trial.number for trial in study if study.tell(trial, well(trial))] == [0, 1, 2, 3]
    curves = tuner.load("told").frames(round=1).curves
    assert len(curves) == 16, "what the killed process reported is gone with its training"


def test_several_processes_get_every_trial_once():
    with another_process(ask_all) as (_, one), another_process(ask_all) as (_, other):
        told = [list(map(int, lines.read().split())) for lines in (one, other)]
    assert sorted(told[0] + told[1]) == list(range(40))
    assert states() == ["complete"] * 40


def test_a_forked_process_is_told_to_open_the_study_itself():
    with tuner.asking(declared()) as study:
        study.ask()
        child = os.fork()
        if not child:
            try:
                study.ask()
            except InputError as error:
                os._exit(7 if "open it in each process" in str(error) else 1)
            os._exit(2)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7


def test_a_loop_whose_trials_are_told_of_is_not_said_to_have_trained_them():
    """Its `words` are about its own training, which did not take place."""

    class Described(Launched):
        def words(self):
            raise AssertionError("called")

    with tuner.asking(declared(Described())) as study:
        study.tell(study.ask(), LAST)
    with open_ledger("runs/tuner.sqlite", create=False) as ledger:
        (launch,) = ledger.launches(ledger.study("told", "round-1").study_id)
    assert launch.environment["trained_by"] == {"door": "asking"}


def test_a_round_is_as_long_and_as_large_as_is_said():
    with tuner.asking(declared(), max_train_steps=40, trials=6) as study:
        for trial in study:
            assert trial.max_train_steps == 40
            study.tell(trial, well(trial))
    assert states() == ["complete"] * 6
    with pytest.raises(DeclarationError, match="--trials 5 is fewer than the 6"), tuner.asking(declared(), trials=5):
        pass


def test_a_round_needs_the_one_before_and_takes_its_best_points():
    with pytest.raises(StorageError, match="round 1 of 'told' has no complete trial"), tuner.asking(declared(), 2):
        pass
    with tuner.asking(declared(trials=8)) as study:
        values = {trial.number: (well(trial)[LOSS][20], trial.point, study.tell(trial, well(trial))) for trial in study}
    best = min(values.values(), key=lambda one: one[0])[1]
    with tuner.asking(declared(trials=8), 2, max_train_steps=40) as study:
        assert dict(study.ask().point) == dict(best)


def test_no_code_and_no_data_are_known_of_what_is_asked_for(tmp_path):
    with tuner.asking(declared()) as study:
        study.tell(study.ask(), LAST)
    with open_ledger("runs/tuner.sqlite", create=False) as ledger:
        row = ledger.study("told", "round-1")
        assert (row.identity["code"], row.identity["data"]) == ({}, {})
        (launch,) = ledger.launches(row.study_id)
        assert set(dict(launch.environment)["promises"].values()) == {False}  # type: ignore[attr-defined]
    changed = declared(rounds=[Round("a test", trials=4, max_train_steps=30, space=declared().rounds[0].space)])
    with pytest.raises(StudyChanged), tuner.asking(changed):
        pass


def test_a_told_study_is_as_promised_without_any_file(tmp_path):
    with tuner.asking(declared()) as study:
        for trial in study:
            study.tell(trial, well(trial) | {"training/loss": {20: 0.1}})
    with open_ledger("runs/tuner.sqlite", create=False) as ledger:
        row = ledger.study("told", "round-1")
        assert study_problems(ledger, row, tmp_path / "none", "told/round-1") == []


def test_a_study_is_trained_here_or_told_and_never_both():
    tuner.launch(declared(Launched(), "launched", trials=1), progress=False)
    with tuner.asking(declared()) as study:
        trial = study.ask()
        study.tell(trial, well(trial))
    told = r"of 'told' were asked for and told of by a script \(tuner.asking\), .*: go on with the script"
    with pytest.raises(StudyChanged, match=told):
        tuner.launch(declared(Launched(), "told"), progress=False)
    with pytest.raises(StudyChanged, match="was trained by `tuner launch`"), tuner.asking(declared(name="launched")):
        pass
    with tuner.asking(declared(trials=2)) as study:
        study.tell(study.ask(), LAST)
    with pytest.raises(StudyChanged):
        tuner.launch(declared(Launched(), trials=2), progress=False)


@pytest.mark.parametrize("call", [tuner.launch, tuner.run, tuner.plan, tuner.sweep])
def test_what_is_trained_elsewhere_is_not_launched(call, tmp_path):
    with pytest.raises(WorkloadError, match=r"OwnLoop has no train.*with tuner\.asking"):
        call(declared())
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_asked_for_is_refused_before_anything_is_written(tmp_path):
    class Ours(Workload):
        batch_size = 8
        select_by = minimize(LOSS)

    for campaign, words in ((declared(Ours()), "Ours is a Workload"), (declared(name=None), "needs a name")):
        with pytest.raises(InputError, match=words), tuner.asking(campaign):
            pass
    with pytest.raises(InputError, match="leave these out"):
        tuner.asking(declared(), sweep=True, trials=3, follows_schedule=True).__enter__()
    assert list(tmp_path.iterdir()) == []


def test_what_a_script_promises_is_seen():
    with tuner.asking(declared(schedule=tuner.cosine()), follows_schedule=True) as study:
        trial = study.ask()
        with pytest.raises(WorkloadError, match=r"nothing has read trial\.rate"):
            study.tell(trial, LAST)
        trial.rate(0)
        study.tell(trial, LAST)
    sweep = Sweep(learning_rate=(0.01, 0.1, 1.0), start_steps=20, max_steps=40, seeds=1)
    with tuner.asking(declared(name="swept", sweep=sweep), sweep=True, follows_schedule=True) as study:
        trial = study.ask()
        curve = {step: {LOSS: 0.1, "training/error_rate": 0.0} for step in trial.evaluation_steps}
        with pytest.raises(WorkloadError, match=r"nothing has read trial\.regularization_off"):
            study.tell(trial, curve)
        assert trial.regularization_off
        with pytest.raises(WorkloadError, match="reads 'training/error_rate'"):
            study.tell(trial, dict.fromkeys(trial.evaluation_steps, 0.1))
        study.tell(trial, curve)


def test_a_study_file_is_asked_for_by_its_path(tmp_path):
    text = (
        "from tuner import *\nspace = SearchSpace(learning_rate=log_uniform(1e-2, 1.0))\n"
        "campaign = Campaign(OwnLoop(select_by=minimize('validation/loss')), evaluations=4,\n"
        "    rounds=[Round('a test', trials=2, max_train_steps=20, space=space)])\n"
    )
    (tmp_path / "elsewhere.py").write_text(text)
    with tuner.asking("elsewhere.py") as study:
        for trial in study:
            study.tell(trial, well(trial))
    assert states("elsewhere") == ["complete"] * 2
