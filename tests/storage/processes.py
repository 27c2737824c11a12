"""What the tests of `storage` run in other processes: `python processes.py COMMAND URL [STUDY_ID]`."""

import sys
import time

from tuner.records import Checkpoint, Measurement, State, TrialUpdate
from tuner.storage.claims import worker_id
from tuner.storage.store import open_ledger


def say(what: object) -> None:
    sys.stdout.write(f"{what}\n")
    sys.stdout.flush()


def drain(url: str, study_id: int) -> None:
    """Claim and finish trials until none is left; print their numbers."""
    with open_ledger(url) as ledger:
        say("ready")
        sys.stdin.readline()
        worker = worker_id()
        while claims := ledger.claim(study_id, worker=worker, lease_seconds=60.0):
            (claim,) = claims
            loss = Measurement(1, "validation/loss", float(claim.trial.number))
            ledger.record([TrialUpdate(claim.trial_id, claim.fence, 1, [loss], state=State.COMPLETE)])
            say(claim.trial.number)
            time.sleep(0.001)  # on a busy machine one process could be through before the others begin


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
