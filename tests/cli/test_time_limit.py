"""Limits of time that are known before: training stops and saves in time, and goes on with the same bits."""

import signal
import time

import pytest
from support.jobs import Job, send
from support.processes import started, told
from support.records import CURVES, rows
from support.study_files import write_study

from tuner import signals, time_limit
from tuner.errors import InputError, Interrupted
from tuner.execution.machine import Machine, machine_from
from tuner.time_limit import RESERVE_SECONDS, known_limit

# A step takes 80 ms or more, also of a group of trials: its examples are fetched one by one.
SLOW_DATA = """

class Slow(torch.utils.data.TensorDataset):
    def __getitem__(self, index):
        time.sleep(0.01 * bool(os.environ.get("SLOWLY")))
        return super().__getitem__(index)


class Tiny"""
SLOWLY = [
    ("\n\nclass Tiny", f"\nimport os\nimport time\n{SLOW_DATA}"),
    ("training=(x[:50], y[:50])", "training=Slow(x[:50], y[:50])"),
]
# Whoever waits at a gate when the time is up is waited for.
PATIENT = "from tuner.time_limit import TimeLimit\nTimeLimit.save_seconds = property(lambda limit: 1e6)"
slow = pytest.mark.slow


class Clocks:
    """The two clocks, at known times."""

    def __init__(self):
        self.since_1970, self.since_boot = 1_700_000_000.0, 5_000.0

    def time(self):
        return self.since_1970

    def monotonic(self):
        return self.since_boot


@pytest.fixture
def clocks(monkeypatch):
    made = Clocks()
    monkeypatch.setattr(time_limit, "time", made)
    return made


def job_ends(clocks, seconds):
    return {"SLURM_JOB_END_TIME": str(int(clocks.since_1970 + seconds))}


def test_without_a_limit_there_is_none(clocks):
    assert known_limit(None, {}) is None
    assert known_limit(None, {"SLURM_JOB_END_TIME": " "}) is None


@pytest.mark.parametrize(
    ("seconds", "reserve", "save", "claims"),
    [(3600.0, 30.0, 20.0, 3560.0), (120.0, 30.0, 20.0, 80.0), (60.0, 15.0, 10.0, 40.0), (8.0, 2.0, 4 / 3, 16 / 3)],
)
def test_how_much_is_kept_back_to_save(seconds, reserve, save, claims, clocks):
    limit = known_limit(seconds, {})
    assert (limit.reserve, limit.save_seconds) == (reserve, pytest.approx(save))
    assert limit.stops_at == 5_000.0 + seconds - reserve
    assert limit.claims_until == pytest.approx(5_000.0 + claims)


def test_the_earlier_limit_counts_and_is_named(clocks):
    job = known_limit(3600.0, job_ends(clocks, 600))
    assert (job.ends_at, job.reserve) == (5_600.0, RESERVE_SECONDS)
    assert "30 s before this SLURM job ends (SLURM_JOB_END_TIME)" in job.told
    option = known_limit(300.0, job_ends(clocks, 600))
    assert option.ends_at == 5_300.0
    assert "30 s before --max-seconds 300 ends" in option.told
    assert "a longer limit leaves more time to save" in known_limit(40.0, {}).told
    assert known_limit(1e300, {}).told, "what is longer than every date has one"


def test_a_clock_that_is_set_later_moves_no_limit(clocks):
    limit = known_limit(None, job_ends(clocks, 600))
    clocks.since_1970 -= 7 * 24 * 3600
    assert limit.stops_at - clocks.monotonic() == 570.0


@pytest.mark.parametrize("seconds", [0.0, -5.0, float("nan"), float("inf")])
def test_wrong_seconds_are_one_clear_error(seconds, clocks):
    with pytest.raises(InputError, match=rf"--max-seconds is a number of seconds above 0, got {seconds:g};"):
        known_limit(seconds, {})


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("soon", "in seconds since 1970, got 'soon'"),
        ("nan", "in seconds since 1970, got 'nan'"),
        ("inf", "in seconds since 1970, got 'inf'"),
        ("0", "in seconds since 1970, got '0'"),
        ("-1700000000", "in seconds since 1970, got '-1700000000'"),
        ("1699999000", r"says that this SLURM job ended 1000 s ago \(1699999000\)"),
        ("1000000000", r"says that this SLURM job ended long ago \(1000000000\)"),
    ],
)
def test_a_wrong_end_of_a_job_is_one_clear_error(given, words, clocks):
    with pytest.raises(InputError, match=f"SLURM_JOB_END_TIME .*{words}.*unset SLURM_JOB_END_TIME"):
        known_limit(None, {"SLURM_JOB_END_TIME": given})


def test_a_job_that_ends_before_anything_could_be_saved_begins_nothing(clocks):
    with pytest.raises(Interrupted, match=r"nothing was begun: this SLURM job ends in 12 s .* may take 30 s"):
        known_limit(None, job_ends(clocks, 12))


def test_another_process_gets_the_time_that_is_left_and_not_the_clock(tmp_path, monkeypatch):
    monkeypatch.setattr("tuner.execution.machine.time.monotonic", lambda: 100.0)
    told_of = Machine(tmp_path, claims_until=160.0).as_json()
    assert told_of["claims_until"] == 60.0
    monkeypatch.setattr("tuner.execution.machine.time.monotonic", lambda: 7.0)
    there = machine_from(told_of)
    assert (there.claims_until, there.may_begin) == (67.0, True)
    monkeypatch.setattr("tuner.execution.machine.time.monotonic", lambda: 67.0)
    assert not there.may_begin
    assert machine_from(Machine(tmp_path).as_json()).may_begin


@pytest.mark.parametrize(
    ("options", "environment", "code"),
    [
        (("--max-seconds", "0"), {}, 2),
        (("--max-seconds", "nan"), {}, 2),
        ((), {"SLURM_JOB_END_TIME": "tomorrow"}, 2),
        ((), {"SLURM_JOB_END_TIME": "1000"}, 2),
        ((), {"SLURM_JOB_END_TIME": "now"}, 130),
    ],
)
@pytest.mark.parametrize("command", ["launch", "run", "worker"])
def test_every_command_that_trains_says_so_before_it_makes_anything(
    command, options, environment, code, tuner, tmp_path, monkeypatch
):
    write_study(tmp_path)
    for name, value in environment.items():
        monkeypatch.setenv(name, str(int(time.time()) + 15) if value == "now" else value)
    run = tuner(command, "tiny.py", *options)
    assert (run.code, len(run.err.splitlines())) == (code, 1), run.err
    assert [path.name for path in tmp_path.iterdir()] == ["tiny.py"]


def test_what_is_only_planned_has_no_limit(tuner, tmp_path, monkeypatch):
    write_study(tmp_path)
    monkeypatch.setenv("SLURM_JOB_END_TIME", "1000")
    assert tuner("launch", "tiny.py", "--dry-run").code == 0


def test_a_known_end_is_what_a_signal_is_and_the_next_command_is_not_asked_to_end():
    shutdown = signals.Shutdown()
    with shutdown.ending_at(time.monotonic(), "the time is up", 1.0):
        while not shutdown.is_set():
            time.sleep(0.01)
    assert not shutdown.is_set()
    with shutdown.ending_at(time.monotonic() + 1e12, "never", 1.0):
        assert not shutdown.is_set()


def gated(folder, *options, **more):
    """A launch that waits at its 40th loss, and was told there that its time is up. The limit grows until it is."""
    for seconds in (8, 16, 32, 64, 128, 256, 512):
        job = Job(folder / str(seconds), *options, "--max-seconds", seconds, more=PATIENT, **more)
        while not list(job.folder.glob("here-*")) and job.launch.poll() is None:
            time.sleep(0.05)
        if job.launch.poll() is None:
            job.gated(1)
            job.heard("the time is up: --max-seconds")
            return job
        told(job.launch)
    raise AssertionError("it never came so far")


def test_the_first_signal_after_a_known_end_is_no_second_request(tmp_path):
    """SLURM's own warning comes after the end that its variable told of; whoever sends another one insists."""
    job = gated(tmp_path, "--fuse", "off", insist=0.0)
    send([job.step], signal.SIGTERM)
    time.sleep(0.2)
    assert job.launch.poll() is None
    code, err = job.go()
    assert (code, "Traceback" in err) == (130, False), err
    assert rows(job.folder, "select state, attempt, step > 30 from trial where number = 0") == [("waiting", 0, 1)], err
    assert "(4 of 4 trials of round-1 are left)" in err


@slow
def test_whoever_insists_after_a_known_end_gets_an_end_at_once(tmp_path):
    job = gated(tmp_path, "--fuse", "off", insist=0.0)
    send([job.step], signal.SIGTERM)
    time.sleep(0.5)
    send([job.step], signal.SIGTERM)
    code, err = told(job.launch)  # nothing lets it go on
    assert (code, "Traceback" in err) == (130, False), err
    assert rows(job.folder, "select max(attempt), max(step) from trial") == [(0, 0)]
    job.go()


@slow
@pytest.mark.parametrize(
    ("options", "steps"), [(("--fuse", "off"), 150), (("--fuse", "4"), 600), (("--workers", "2", "--fuse", "off"), 300)]
)
def test_stopped_by_its_limit_three_times_and_more_it_has_the_same_bits(options, steps, tmp_path):
    for name in ("calm", "rough"):
        (tmp_path / name).mkdir()
        write_study(tmp_path / name, steps=steps, replace=SLOWLY)
    calm, rough = tmp_path / "calm", tmp_path / "rough"
    assert told(started(calm, "launch", "tiny.py", "--fuse", "off"))[0] == 0
    stopped, seconds, done = 0, 8, 0
    while stopped < 3:
        code, err = told(
            started(
                rough, "launch", "tiny.py", *options, "--max-seconds", seconds,
                program=("-c", f"from tuner.cli import main\n{PATIENT}\nmain()"), SLOWLY="1",
            )
        )  # fmt: skip
        assert (code, "Traceback" in err) == (130, False), err
        before, done = done, _progress(rough)
        if done == before:
            seconds *= 2  # a busy machine: it did not even get to a step
            continue
        stopped, seconds = stopped + 1, 8
        assert rows(rough, "select count(*) from trial where state = 'running'") == [(0,)]
        assert rows(rough, "select max(attempt) from trial where state = 'waiting'") == [(0,)]
    code, err = told(started(rough, "launch", "tiny.py", *options))
    assert code == 0, err
    assert rows(rough, CURVES) == rows(calm, CURVES)
    assert rows(rough, "select state, count(*), max(attempt) from trial group by state") == [("complete", 4, 1)]


def _progress(folder):
    """Steps that are saved; none where there is no storage yet."""
    if not (folder / "runs" / "tuner.sqlite").exists():
        return 0
    return rows(folder, "select coalesce(sum(step), 0) from trial")[0][0]


@slow
def test_a_job_of_slurm_stops_before_its_end_without_an_option(tmp_path):
    """With 8 s kept back in place of 30: no test waits for more than that needs."""
    (tmp_path / "calm").mkdir()
    for folder in (tmp_path / "calm", tmp_path):
        write_study(folder, steps=2000, trials=2, replace=SLOWLY)
    program = "from tuner import time_limit\nfrom tuner.cli import main\ntime_limit.RESERVE_SECONDS = 8.0\nmain()"
    seconds, done = 20, 0
    while not done:
        end = int(time.time()) + seconds
        job = started(
            tmp_path, "launch", "tiny.py", "--workers", 1, program=("-c", program), SLOWLY="1",
            SLURM_JOB_END_TIME=str(end),
        )  # fmt: skip
        code, err = told(job)
        assert (code, "Traceback" in err) == (130, False), err
        assert "8 s before this SLURM job ends (SLURM_JOB_END_TIME)" in err
        done, seconds = _progress(tmp_path), 2 * seconds
    assert "the time is up: this SLURM job ends (SLURM_JOB_END_TIME) in 8 s" in err
    assert rows(tmp_path, "select max(attempt), max(state = 'running') from trial") == [(0, 0)]
    for folder in (tmp_path / "calm", tmp_path):
        assert told(started(folder, "launch", "tiny.py", "--fuse", "off"))[0] == 0
    assert rows(tmp_path, CURVES) == rows(tmp_path / "calm", CURVES)
