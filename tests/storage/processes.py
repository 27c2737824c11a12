"""What the tests of `storage` run in other processes: `python processes.py COMMAND URL [STUDY_ID]`."""

import subprocess
import sys

from tuner.records import Checkpoint, Measurement, State, TrialUpdate
from tuner.storage.liveness import worker_id
from tuner.storage.store import Ledger, open_ledger


def say(what: object) -> None:
    sys.stdout.write(f"{what}\n")
    sys.stdout.flush()


def drain(url: str, study_id: int) -> None:
    """Finish a trial when a line comes, and after another one all that are left; print their numbers."""
    with open_ledger(url) as ledger:
        say("ready")
        sys.stdin.readline()
        finish_one(ledger, study_id)
        sys.stdin.readline()
        while finish_one(ledger, study_id):
            pass


def finish_one(ledger: Ledger, study_id: int) -> bool:
    """Claim and finish a trial; False where none is left."""
    for claim in ledger.claim(study_id, worker=worker_id(), lease_seconds=60.0):
        loss = Measurement(1, "validation/loss", float(claim.trial.number))
        ledger.record([TrialUpdate(claim.trial_id, claim.fence, 1, [loss], state=State.COMPLETE)])
        say(claim.trial.number)
        return True
    return False


def drained_by(workers: list[subprocess.Popen[str]]) -> list[list[int]]:
    """The trials that each of some processes drained together. Each has its first before any has its second."""
    assert [_heard(worker) for worker in workers] == ["ready"] * len(workers)
    _tell(workers)
    firsts = [_heard(worker) for worker in workers]
    _tell(workers)
    others = [worker.communicate()[0].split() for worker in workers]
    assert [worker.returncode for worker in workers] == [0] * len(workers)
    return [[int(number) for number in (first, *rest)] for first, rest in zip(firsts, others, strict=True)]


def _heard(worker: subprocess.Popen[str]) -> str:
    assert worker.stdout is not None
    return worker.stdout.readline().strip()


def _tell(workers: list[subprocess.Popen[str]]) -> None:
    for worker in workers:
        assert worker.stdin is not None
        worker.stdin.write("go\n")
        worker.stdin.flush()


def record(url: str, study_id: int) -> None:
    """Claim everything, and record all trials together, from where they were left, step after step, until killed."""
    with open_ledger(url) as ledger:
        claims = ledger.claim(study_id, worker=worker_id(), lease_seconds=60.0, max_trials=100)
        say("ready")
        resumed = max((kept.step for claim in claims for kept in claim.checkpoints), default=0)
        for step in range(resumed + 1, 1_000_000):
            updates = []
            for claim in claims:
                measured = [Measurement(step, f"validation/metric {k}", step + k) for k in range(8)]
                latest = Checkpoint("latest", step, f"step-{step}.pt", "digest", 8, float(step), str(claim.trial_id))
                updates.append(TrialUpdate(claim.trial_id, claim.fence, step, measured, [latest]))
            ledger.record(updates)


def launch(url: str, study_id: int) -> None:
    """Open a Ledger at the moment the parent says go."""
    say("ready")
    for line in sys.stdin:
        with open_ledger(line.strip()) as ledger:
            say(len(ledger.campaigns()))


if __name__ == "__main__":
    {"drain": drain, "record": record, "launch": launch}[sys.argv[1]](sys.argv[2], int(sys.argv[3]))
