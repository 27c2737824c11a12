"""What a worker waits for between studies, with a real Ledger and a clock that only the waiting moves."""

import subprocess
import sys

import pytest
from support.study_files import write_study
from support.tiny import tiny_study

from tuner.design.study_file import declared_stages
from tuner.errors import NoServer, Paused, StorageError
from tuner.records import State, TrialUpdate
from tuner.records.conclusions import Launcher
from tuner.rounds import serving
from tuner.rounds.plan import planned_trials
from tuner.rounds.presence import LaunchPresence, is_launching
from tuner.rounds.serving import LONGEST_PAUSE, SPREAD, AskedLaunch, Serving
from tuner.storage.liveness import worker_id
from tuner.storage.store import open_ledger


class Clock:
    """Time that passes while somebody waits; `at`: what happens at a second of it."""

    def __init__(self):
        self.now, self.waits, self.at = 1000.0, [], {}

    def monotonic(self):
        return self.now

    def sleep(self, seconds):
        self.waits.append(seconds)
        self.now += seconds
        for moment in [one for one in self.at if one <= self.now - 1000.0]:
            self.at.pop(moment)()


@pytest.fixture
def clock(monkeypatch):
    made = Clock()
    monkeypatch.setattr(serving, "time", made)
    return made


@pytest.fixture
def ledger(tmp_path):
    with open_ledger(str(tmp_path / "ledger.sqlite")) as opened:
        yield opened


class Campaign:
    """The two rounds of tiny.py in a Ledger, one trial each."""

    def __init__(self, ledger):
        self.ledger, self.claims = ledger, []

    def launch(self, number):
        study = tiny_study(name=f"round-{number}", round=number, num_trials=1)
        self.row = self.ledger.start_study("tiny", study, "code", trials=planned_trials(study))

    def claim(self):
        self.claims = self.ledger.claim(self.row.study_id, worker="elsewhere:1:a", lease_seconds=1e6)

    def finish(self):
        (one,) = self.claims
        self.ledger.record([TrialUpdate(one.trial_id, one.fence, 24, state=State.COMPLETE)])


@pytest.fixture
def campaign(ledger):
    return Campaign(ledger)


@pytest.fixture
def serve(tmp_path, ledger, clock):
    """The next study, or why there is none; and what was told."""
    stages = declared_stages(write_study(tmp_path))

    def next_study(until="campaign", idle=300.0):
        told = []
        found = Serving(stages, until, idle, lambda: False, told.append).next_study(ledger)
        return found if isinstance(found, str) else found.name, told

    return next_study


def test_the_next_round_is_waited_for_and_then_the_campaign_is_over(serve, campaign, clock):
    campaign.launch(1)
    assert serve() == ("round-1", []), "what is there is not waited for"
    campaign.claim()
    clock.at = {900.0: campaign.finish, 1100.0: lambda: campaign.launch(2)}
    found, told = serve()
    assert found == "round-2"
    assert told == [
        "waiting: other workers train the trials that are left",
        "waiting for the next study, for 300 s at most; 1 of 2 rounds were launched",
    ]
    campaign.claim()
    campaign.finish()
    assert serve() == ("the campaign is over: nothing is left to train in 2 studies", [])


def test_idle_time_is_that_in_which_nobody_trains(serve, campaign, clock):
    campaign.launch(1)
    campaign.claim()
    clock.at = {5000.0: campaign.finish}
    found, _ = serve(idle=60.0)
    assert found == "no more work came in 60 s (--idle-timeout); 1 of 2 rounds were launched"
    assert abs(clock.now - 1000.0 - 5060.0) <= LONGEST_PAUSE * (1 + SPREAD), "as soon as that was seen"
    before = clock.now
    assert serve(idle=0.0)[0].startswith("no more work came in 0 s")
    assert clock.now == before
    assert serve(until="study") == ("nothing is left to train in 1 study", [])


def test_a_server_that_does_not_run_yet_is_waited_for(clock, tmp_path):
    asked = AskedLaunch("tiny.py", ("tiny",), "postgresql://u@127.0.0.1:1/d")
    with pytest.raises(NoServer, match="check the address"):
        asked.wait(0.0, str)
    with pytest.raises(Paused, match=r"no launch of tiny\.py came within 3 s: .*Connection refused"):
        asked.wait(3.0, str)
    assert sum(clock.waits) == pytest.approx(3.0)


def test_who_waits_asks_seldom_and_not_with_all_the_others(serve, campaign, clock):
    campaign.launch(1)
    campaign.claim()
    campaign.finish()
    serve(idle=600.0)
    assert max(clock.waits) <= LONGEST_PAUSE * (1 + SPREAD) < 10.0
    assert min(clock.waits[4:-1]) >= LONGEST_PAUSE * (1 - SPREAD)
    assert len(set(clock.waits)) == len(clock.waits), "no two are of one length"
    assert len(clock.waits) < 600.0 / LONGEST_PAUSE / (1 - SPREAD) + 5


def test_while_a_command_that_launches_is_at_work_the_campaign_is_not_over(serve, campaign, ledger):
    for number in (1, 2):
        campaign.launch(number)
        campaign.claim()
        campaign.finish()
    with LaunchPresence(ledger, "tiny") as presence:
        presence.begin()
        assert is_launching(ledger, ["tiny", "unknown"])
        assert serve()[0] == "no more work came in 300 s (--idle-timeout); 2 of 2 rounds were launched"
    assert not is_launching(ledger, ["tiny"])
    assert serve()[0].startswith("the campaign is over")


def test_a_launcher_that_was_killed_on_this_machine_is_not_at_work_and_elsewhere_nobody_knows(ledger, campaign):
    campaign.launch(1)
    code = "from tuner.storage.liveness import worker_id; print(worker_id())"
    dead = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    for worker, known in ((dead, False), (worker_id(), True), ("node7:12:ab", True)):
        ledger.conclude("tiny", Launcher(worker, at_work=True))
        assert is_launching(ledger, ["tiny"]) is known, worker


def test_a_launcher_ends_its_own_presence_and_not_that_of_one_that_began_since(ledger, campaign):
    campaign.launch(1)
    first, second = LaunchPresence(ledger, "tiny"), LaunchPresence(ledger, "tiny")
    with second:
        with first:
            first.begin()
            second.begin()
        assert is_launching(ledger, ["tiny"])
    assert not is_launching(ledger, ["tiny"])
    with LaunchPresence(ledger, "tiny"):
        pass
    assert ledger.conclusion("tiny", Launcher).at_work is False


def test_a_launch_is_waited_for_without_a_storage_being_made(tmp_path, clock):
    storage = tmp_path / "later" / "tuner.sqlite"
    asked, told = AskedLaunch("tiny.py", ("tiny",), str(storage)), []
    with pytest.raises(StorageError, match=r"there is no storage at .*; --wait-for-launch 600 waits for that"):
        asked.wait(0.0, told.append)
    with pytest.raises(
        Paused, match=r"no launch of tiny\.py came within 60 s: start it \(tuner run tiny.*there is no storage at "
    ):
        asked.wait(60.0, told.append)
    assert told == ["waiting for a launch of tiny.py, for 60 s at most"]
    assert list(tmp_path.iterdir()) == []


def test_a_launch_that_comes_is_found_in_a_storage_that_comes_before_it(tmp_path, clock):
    storage = str(tmp_path / "later.sqlite")

    def made():
        open_ledger(storage).close()

    def launched():
        with open_ledger(storage) as ledger:
            Campaign(ledger).launch(1)

    clock.at = {30.0: made, 90.0: launched}
    asked = AskedLaunch("tiny.py", ("tiny",), storage)
    assert asked.wait(100.0, lambda text: None) is True
    assert 90.0 <= clock.now - 1000.0 <= 100.0
    assert asked.wait(0.0, lambda text: None) is False
    other = AskedLaunch("other.py", ("other",), storage)
    with pytest.raises(StorageError, match=r"later\.sqlite has no study of other\.py yet: launch it first"):
        other.wait(0.0, lambda text: None)
