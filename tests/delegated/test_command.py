"""A command as the loop of a study: its curve is that of the program alone, and each breach is told in one error."""

import json
import os
import random
import re
import subprocess
import sys
from pathlib import Path

import pytest
from support.loops import setup_for, train_loop
from support.patience import wait_for
from support.programs import RESUMED, WORDS, fitting, write_fit
from support.shell import tuner
from support.tiny import MemoryRecorder, tiny_study

from tuner import (
    Campaign,
    Command,
    Round,
    SearchSpace,
    Sweep,
    at_most,
    constant,
    cosine,
    log_uniform,
    minimize,
    uniform,
)
from tuner.delegated.command_lines import said_by
from tuner.delegated.looks import look_at
from tuner.design.prefix import rates_of
from tuner.errors import AttemptLost, DeclarationError, InputError, Paused, WorkloadError
from tuner.records import State
from tuner.records.promises import SEEDS
from tuner.rounds.plan import planned_trials, study_of_round
from tuner.testing import check_engine
from tuner.training.checkpoints import read_weights

__all__ = ["tuner"]
PAGE = Path(__file__).parents[2] / "docs/how-to/command.md"
SWEPT = f'''
from tuner import *

campaign = Campaign(
    Command(
        "{WORDS} --off {{regularization_off}}",
        select_by=minimize("validation/loss"),
        fitted_when=at_most("training/error_rate", 0.2),
        constant_rate=True,
    ),
    sweep=Sweep([0.1, 0.3, 1.0], start_steps=20, max_steps=40, seeds=1),
    evaluations=4,
    rounds=[Round("Which rate?", trials=2, space=SearchSpace(learning_rate=log_uniform(1e-2, 1.0)))],
)
'''
STUDY = tiny_study(batch_size=0, optimizer=None)
TRIAL = planned_trials(STUDY)[0]
DUE = STUDY.budget.evaluation_steps


def setup_of(workload, folder, **changes):
    return setup_for(workload, folder / "kept", STUDY, study_file=write_fit(folder), **changes)


def trained(workload, folder, recorder=None, **changes):
    recorder = recorder or MemoryRecorder()
    return train_loop(setup_of(workload, folder, **changes), recorder, TRIAL), recorder


def alone(folder, *more, rate=True):
    """What the program prints without us."""
    write_fit(folder)
    rates = folder / "rates-alone.json"
    rates.write_text(json.dumps(list(rates_of(TRIAL))))
    words = [sys.executable, "fit.py", "--lr", "1", "--steps", "24", "--evaluate", ",".join(map(str, DUE))]
    words += ["--seed", str(TRIAL.seed % 2**32), "--rates", str(rates), *more]
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=True)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    return {(line["step"], name): line[name].hex() for line in lines for name in line if "/" in name}


def log_of(folder):
    return (folder / "kept/tiny/round-1/trial-00000/files/output.log").read_text()


@pytest.mark.parametrize("more", ["", RESUMED, "--metrics {metrics}"])
def test_the_curve_is_that_of_the_program_alone(tmp_path, more):
    update, recorder = trained(fitting("--rates {rates} " + more), tmp_path)
    assert update.state is State.COMPLETE, update.reason
    assert recorder.measurements == alone(tmp_path)
    assert {step for step, _ in recorder.measurements} == set(DUE)


def test_the_best_weights_are_the_files_of_the_best_step(tmp_path):
    update, recorder = trained(fitting(), tmp_path)
    losses = {float.fromhex(value): step for (step, name), value in recorder.measurements.items() if "loss" in name}
    best = min(update.checkpoints, key=lambda one: (one.kind != "best", one.value))
    assert best.step == losses[min(losses)]
    held = read_weights(tmp_path / "kept", best)
    content = held[f"file:step-{best.step}.json"].numpy().tobytes()
    assert json.loads(content)["step"] == best.step
    assert json.loads(held["file:tuner-command.json"].numpy().tobytes()) == {
        "step": best.step, "saved": True, "held": {},
    }  # fmt: skip


class StopBeyond:
    """Says stop from the first question on, once the program has reported so many updates."""

    def __init__(self, step):
        self.step, self.reached = step, 0

    def __call__(self):
        return self.reached >= self.step

    def on_step(self, claim, step):
        self.reached = step


@pytest.mark.parametrize("more", [RESUMED, ""])
def test_a_stopped_program_goes_on_from_its_newest_checkpoint(tmp_path, more):
    slowly = "time.sleep(0.3)"
    recorder, stop = MemoryRecorder(), StopBeyond(10)
    workload = fitting("--rates {rates} " + more, here=slowly)
    setup = setup_of(workload, tmp_path, stop=stop)
    update = train_loop(setup, recorder, TRIAL, stop.on_step)
    assert update.state is State.RUNNING
    assert update.step in (DUE if more else (0,))
    assert update.step < 24
    update, _ = trained(workload, tmp_path, recorder)
    assert update.state is State.COMPLETE, update.reason
    assert recorder.measurements == alone(tmp_path)


def test_reports_between_checkpoints_are_saved_with_the_checkpoint(tmp_path):
    """A checkpoint after every other report, a commit after each: killed anywhere, no report is lost or doubled."""
    rarely = "line.pop('checkpoint') if step + 1 in (5, 15) else None"
    expected = alone(tmp_path)
    for cut in range(1, 8):
        recorder = MemoryRecorder()
        folder = tmp_path / f"cut-{cut}"
        folder.mkdir()

        def record(updates, recorder=recorder, cut=cut):
            MemoryRecorder.record(recorder, updates)
            if len(recorder.updates) == cut:
                raise KeyboardInterrupt

        recorder.record = record
        workload = fitting(here=rarely)
        setup = setup_of(workload, folder, commit_seconds=0.0)
        try:
            train_loop(setup, recorder, TRIAL)
        except KeyboardInterrupt:
            train_loop(setup, recorder, TRIAL)
        assert recorder.updates[-1].state is State.COMPLETE
        assert recorder.measurements == expected


def test_signal_reaches_the_program_which_can_save(tmp_path):
    """A program that saves at SIGTERM goes on from there: here at step 12, where no evaluation is due."""
    saves = """
def save(*_):
    kept = given.out / 'last.json'
    kept.write_text(json.dumps({'step': step + 1, 'weights': weights}))
    say(step=step + 1, checkpoint=str(kept))
    os._exit(0)
signal.signal(signal.SIGTERM, save)
"""
    write_fit(tmp_path)
    program = (tmp_path / "fit.py").read_text()
    changed = program.replace("    if step + 1 in due:", f"    {saves.strip().replace(chr(10), chr(10) + '    ')}\n"
        "    if step == 11 and not begun: say(step=12); time.sleep(3600)\n    if step + 1 in due:")  # fmt: skip
    assert changed != program
    recorder, stop = MemoryRecorder(), StopBeyond(12)
    workload = fitting()
    setup = setup_of(workload, tmp_path, stop=stop)
    (tmp_path / "fit.py").write_text(changed)
    update = train_loop(setup, recorder, TRIAL, stop.on_step)
    assert (update.state, update.step) == (State.RUNNING, 12)
    update, _ = trained(workload, tmp_path, recorder)
    assert recorder.measurements == alone(tmp_path)


@pytest.mark.parametrize(
    ("here", "after", "error", "words"),
    [
        ("line.pop('validation__loss')", "", WorkloadError, "reports 'training/error_rate' at step 5, and select_by"),
        ("line['validation__los'] = line.pop('validation__loss')", "", WorkloadError, "did you mean 'validation/los'"),
        ("line['val__loss'] = line.pop('validation__loss')", "", WorkloadError, "named by split and name"),
        ("line = {'step': step + 1, 'val_loss': 1.0}", "", WorkloadError, "'val_loss' after 5 .* select_by"),
        ("step > 22 and (line := {'step': 24, 'lr': 1})", "", WorkloadError, "'lr' after 24 updates, where .* is due"),
        ("line['test__loss'] = 1.0", "", WorkloadError, r"test split never selects anything \(D31\)"),
        ("line['validation__loss'] = '0.3'", "", WorkloadError, "which is no number"),
        ("line['step'] -= 6 * (step > 8)", "", WorkloadError, "names step 4 after step 5: steps go forward"),
        ("line['step'] = 25", "", WorkloadError, "names step 25, and its trial ends after 24 updates"),
        ("line['step'] = 2.5", "", WorkloadError, "a whole number from 0"),
        ("line['step'] = 10", "", WorkloadError, "an evaluation was due after 5 updates"),
        ("say(**line)", "", WorkloadError, "reports step 5 twice"),
        ("print('{\"step\": 5, \"validation/loss\": ')", "", WorkloadError, "wrote a line that is no JSON"),
        ("line['checkpoint'] = 'nowhere'", "", WorkloadError, "there is no file in"),
        ("line['checkpoint'] = 3", "", WorkloadError, "the path of a file or a folder"),
        ("line['checkpoint'] = 'fit.py'", "", WorkloadError, "as for step 5 before"),
        ("step > 10 and sys.exit(0)", "", WorkloadError, "ended with exit code 0 and reported nothing after 15"),
        ("step > 10 and sys.exit(75)", "", Paused, "go on later"),
        ("step > 10 and os.kill(os.getpid(), 9)", "", AttemptLost, "signal 9"),
        ("step > 10 and sys.exit(137)", "", AttemptLost, "exit code 137"),
        ("step > 10 and time.sleep(3600)", "", AttemptLost, "reported nothing for 1 s"),
    ],
)  # fmt: skip
def test_each_breach_is_told_at_once(tmp_path, here, after, error, words):
    with pytest.raises(error, match=words):
        trained(fitting(here=here, after=after or "pass"), tmp_path, stall_seconds=1.0 if "3600" in here else 1e9)


def test_a_program_that_fails_ends_its_trial_with_its_last_words(tmp_path):
    here = "if step > 10: print('out of \\x1b[31mluck\\xff', file=sys.stderr); sys.exit(3)"
    update, recorder = trained(fitting(here=here), tmp_path)
    assert update.state is State.FAILED
    assert "ended with exit code 3 at step 10" in update.reason
    assert "out of \\x1b[31mluck" in update.reason
    assert {step for step, _ in recorder.measurements} == {5, 10}
    assert "\x1b" not in log_of(tmp_path)


def test_a_program_gives_up_its_point(tmp_path):
    update, _ = trained(fitting(here="say(infeasible='too large a rate')"), tmp_path)
    assert (update.state, update.reason) == (State.INFEASIBLE, "too large a rate")


def test_no_number_ends_the_trial_there(tmp_path):
    update, recorder = trained(fitting(here="line['validation__loss'] = math.nan if step > 8 else 1.0"), tmp_path)
    assert update.state is State.INFEASIBLE
    assert "diverged: validation/loss is nan at step 10" in update.reason
    assert max(step for step, _ in recorder.measurements) == 10


def test_lines_that_are_not_due_are_left_out_with_one_warning(tmp_path, caplog):
    here = "say(step=step, validation__loss=9.0); say(step=step); say(step=step + 1, loss=1.0)"
    _, recorder = trained(fitting(here=here), tmp_path)
    assert recorder.measurements == alone(tmp_path)
    assert sum("where no evaluation is due" in one.getMessage() for one in caplog.records) == 1


def test_output_of_any_kind_is_kept_safely_and_bounded(tmp_path, monkeypatch):
    from tuner.delegated import command_process

    monkeypatch.setattr(command_process, "LOG_BYTES", 20_000)
    here = (
        "sys.stdout.buffer.write(b'\\xff\\xfe{\\n' + b'x' * 3_000_000 + b'\\n'); print('{not ours}');"
        "[print('flood', i) for i in range(3000)]; print({'a': 1}); sys.stdout.flush()"
    )
    update, recorder = trained(fitting(here=here), tmp_path)
    assert update.state is State.COMPLETE, update.reason
    assert recorder.measurements == alone(tmp_path)
    log = log_of(tmp_path)
    assert "flood 2999" in log
    folder = tmp_path / "kept/tiny/round-1/trial-00000/files"
    assert sum(one.stat().st_size for one in folder.iterdir()) < 45_000


def test_a_program_that_closes_its_output_is_read_in_its_file(tmp_path):
    here = "os.close(1) if step == 4 else None"
    update, recorder = trained(fitting("--rates {rates} --metrics {metrics}", here=here), tmp_path)
    assert update.state is State.COMPLETE, update.reason
    assert recorder.measurements == alone(tmp_path)


def gone(pids):
    return not any(
        os.path.exists(f"/proc/{pid}") and open(f"/proc/{pid}/stat").read().split()[2] != "Z" for pid in pids
    )


DAEMON = """
if step == 4:
    pid = os.fork()
    if pid == 0:
        os.setsid()
        if os.fork(): os._exit(0)
        Path('pids').write_text(str(os.getpid()))
        time.sleep(3600)
    os.waitpid(pid, 0)
"""


def test_a_daemon_of_the_program_ends_with_it(tmp_path):
    update, _ = trained(fitting(here=DAEMON), tmp_path)
    assert update.state is State.COMPLETE, update.reason
    wait_for(lambda: gone((tmp_path / "pids").read_text().split()))


def test_a_program_that_does_not_end_is_stopped_and_that_is_said(tmp_path, caplog, monkeypatch):
    from tuner.delegated import command_loop

    monkeypatch.setattr(command_loop, "GRACE_SECONDS", 0.5)
    update, recorder = trained(fitting(after="time.sleep(3600)"), tmp_path)
    assert update.state is State.COMPLETE
    assert recorder.measurements == alone(tmp_path)
    assert "it has to end by itself" in caplog.text


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("python fit.py", "has no {max_train_steps}"),
        ("python 'fit.py {max_train_steps}", "cannot be split into words"),
        ("", "begins with a program"),
        (["python", 3], "all its words are texts"),
        (7, "takes a text or a list of words"),
        ("python fit.py {max_train_steps} {", "has a brace alone"),
        ("python fit.py {max_train_steps} {learning_rate:.2f}", "no digit is lost"),
        ("python fit.py {max_train_steps} {}", "no plain {name}"),
    ],
)
def test_a_command_that_cannot_be_is_refused_when_it_is_made(command, words):
    with pytest.raises(DeclarationError, match=words.replace("{", r"\{")):
        Command(command, select_by=minimize("validation/loss"))


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (f"{WORDS} --lr {{rate}}", "the command has {rate}, which is no hyperparameter"),
        ("nothing-of-this-name {max_train_steps}", "there is no program 'nothing-of-this-name'"),
        ("fit.py {max_train_steps}", "write ./fit.py, and let it be executable"),
    ],
)
def test_a_command_that_does_not_go_with_its_study_is_refused_at_the_first_look(tmp_path, command, words):
    with pytest.raises(InputError, match=words.replace("{", r"\{")):
        trained(Command(command, select_by=minimize("validation/loss")), tmp_path)


def test_values_reach_the_program_to_the_last_digit(tmp_path):
    shows = "import sys; print(sys.argv[1:]); sys.exit(3)"
    command = ["python", "-c", shows, "{learning_rate}", "--n={number}", "{{x}}", "{max_train_steps}", "a b"]
    update, _ = trained(Command(command, select_by=minimize("validation/loss")), tmp_path)
    rate = TRIAL.point.number("learning_rate")
    assert repr([repr(rate), "--n=0", "{x}", "24", "a b"]) in update.reason


def test_the_study_and_the_program_of_the_page_are_as_good_in_another_language(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    page = PAGE.read_text(encoding="utf-8")
    (tmp_path / "train.awk").write_text(re.findall(r"```text\n(BEGIN.*?)```", page, flags=re.DOTALL)[0])
    shown: dict = {}
    exec(next(one for one in re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL) if "awk" in one), shown)
    command = shown["command"]
    found = check_engine(command, point={"learning_rate": 0.1})
    found.require("deterministic", "follows_schedule")
    assert SEEDS not in found.why, "its seed is read"
    update, recorder = trained(command, tmp_path)
    assert update.state is State.COMPLETE, update.reason
    assert {step for step, _ in recorder.measurements} == set(DUE)
    losses = [float.fromhex(value) for _, value in sorted(recorder.measurements.items())]
    assert losses == sorted(losses, reverse=True)


def test_a_constant_rate_is_a_constant_schedule():
    """It follows the study: its rounds, and a sweep, train at the rate of the point, without a warmup."""
    words = "python fit.py --lr {learning_rate} --steps {max_train_steps}"
    space = SearchSpace(learning_rate=log_uniform(1e-3, 1.0))

    def declared(space=space, **changes):
        command = Command(words, select_by=minimize("validation/loss"), constant_rate=True,
                          fitted_when=at_most("training/error_rate", 0.0))  # fmt: skip
        assert command.follows_schedule is True
        return Campaign(command, rounds=[Round("Which?", trials=4, max_train_steps=100, space=space)], **changes)

    for same in ({}, {"schedule": constant()}, {"sweep": Sweep()}):
        made = declared(**same)
        assert made.schedule == constant()
        assert set(rates_of(planned_trials(study_of_round(made, 1, 100))[0])) == {
            planned_trials(study_of_round(made, 1, 100))[0].point["learning_rate"]
        }
    for changes in ({"schedule": cosine()}, {"warmup": 0.05}, {"warmup_steps": 5}):
        with pytest.raises(DeclarationError, match=f"{next(iter(changes))} has no meaning, because Command"):
            declared(**changes)
    for name in ("warmup_steps", "decay_fraction"):
        with pytest.raises(DeclarationError, match=f"{name} has no meaning, because Command"):
            declared(SearchSpace(learning_rate=log_uniform(1e-3, 1.0), **{name: uniform(0.1, 0.5)}))
    with pytest.raises(DeclarationError, match=r"has no \{learning_rate\}, and constant_rate=True"):
        Command("python fit.py {max_train_steps}", select_by=minimize("validation/loss"), constant_rate=True)


def test_a_sweep_trains_a_program_at_constant_rates(tmp_path, tuner):
    write_fit(tmp_path)
    (tmp_path / "mine.py").write_text(SWEPT)
    ran = tuner("sweep", "mine.py", "-q")
    assert ran.code in (0, 3), ran.err  # 3: none of its few rates is the fastest beyond doubt
    assert len(re.findall(r"^ *(?:0.1|0.3|1) +complete", ran.out, re.MULTILINE)) == 3, ran.out


def test_any_bytes_are_a_line_of_ours_or_not_or_one_clear_error():
    source = random.Random(1)
    pieces = [b'{"step": 3', b'"validation/loss"', b": 0.5", b"}", b"{", b"\xff", b"NaN", b"[", b"1e999", b",", b" "]
    seen = set()
    for _ in range(20_000):
        line = b"".join(source.choice(pieces) for _ in range(source.randrange(6)))
        try:
            seen.add(type(said_by(line, "program", always=source.random() < 0.5)).__name__)
        except WorkloadError:
            seen.add("error")
    assert seen == {"NoneType", "SaidLine", "error"}


def test_where_nothing_ends_a_program_with_us_it_is_not_started(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "platform", "win32")
    workload = Command("python fit.py --steps {max_train_steps}", select_by=minimize("validation/loss"))
    with pytest.raises(InputError, match="needs Linux or macOS"):
        look_at(setup_for(workload, tmp_path), TRIAL)


def test_a_constant_rate_that_is_no_truth_value_is_refused():
    with pytest.raises(DeclarationError, match="constant_rate of a Command is True or False, got 'no'"):
        fitting(constant_rate="no")


@pytest.mark.parametrize("env", ["A=1", {"A": 1}, [("A", "1")]])
def test_an_environment_that_is_no_dict_of_texts_is_refused(env):
    with pytest.raises(DeclarationError, match="env of a Command is a dict of texts"):
        Command("python fit.py {max_train_steps}", select_by=minimize("validation/loss"), env=env)
