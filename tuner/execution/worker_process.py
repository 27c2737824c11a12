"""A worker process: `python -m tuner.execution.worker_process`, told what to do on its standard input.

It claims trials from the Ledger itself and tells its parent how they go. It ends with its parent: by a signal of
the kernel on Linux, and everywhere because its standard input ends.
"""

import ctypes
import gc
import json
import os
import queue
import signal
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import TextIO

from tuner.design.identity import Identity, changes, identity_from
from tuner.design.study_file import load_campaign
from tuner.errors import DeviceLost, InputError, Interrupted, StudyChanged, TrialsFailed, TunerError
from tuner.execution.fusing import parsed_fuse
from tuner.execution.identifying import MoreCode
from tuner.execution.in_process import InProcess, Lease
from tuner.execution.orders import STOP, Mouth, Order, Place
from tuner.execution.quota import Quota
from tuner.records import Claim, TrialUpdate
from tuner.shown import escape_logs, shown_lines
from tuner.signals import ENDING, HANDING_OVER_SECONDS, SAVE_SECONDS, silent
from tuner.storage.store import Ledger, open_ledger

ALIVE_SECONDS = 1.0
_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Work until there are no orders any more, or somebody says stop."""
    die_with_the_parent()
    escape_logs()
    mouth = Mouth(os.dup(1))
    os.dup2(2, 1)  # what user code prints must not get between our messages
    os.register_at_fork(after_in_child=ENDING.forget)
    try:
        ENDING.listen(silent, save_seconds=SAVE_SECONDS - HANDING_OVER_SECONDS, alone=False)
        mouth.say("alive")
        told = sys.stdin.readline()
        if not told:
            return  # the parent is gone already
        place = Place(**json.loads(told))
        orders: queue.Queue[Order | None] = queue.Queue()
        threading.Thread(target=_listen, args=(sys.stdin, orders), daemon=True).start()
        _work(place, orders, mouth)
    except (Interrupted, KeyboardInterrupt):
        mouth.say("stopped")
    except TunerError as error:
        mouth.say("fault", kind=_family(error), name=type(error).__name__, text=str(error))
    except Exception as error:  # text and never the object: it may not survive the journey
        sys.stderr.write(shown_lines(traceback.format_exc(), ""))
        mouth.say("fault", kind="fault", text=f"{type(error).__name__}: {error}")
    gc.freeze()  # as in the command: nothing is searched for cycles at the end


def _family(error: TunerError) -> str:
    """Which kind of error the coordinator shall raise."""
    if isinstance(error, InputError):
        return "input"
    if isinstance(error, TrialsFailed):
        return "failed"
    return "device" if isinstance(error, DeviceLost) else "paused"


def die_with_the_parent() -> None:
    """Have the kernel end this process when its parent ends."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _listen(stream: TextIO, orders: "queue.Queue[Order | None]") -> None:
    """Pass orders on; that to stop is for now. The end of the stream without a farewell is the end of the parent."""
    for line in stream:
        told = json.loads(line)
        if told == STOP:
            ENDING.tell()
            continue
        orders.put(Order(**told) if told else None)
        if not told:
            return
    os._exit(1)


def _work(place: Place, orders: "queue.Queue[Order | None]", mouth: Mouth) -> None:
    name, campaign = load_campaign(Path(place.study_file))
    backend = InProcess(
        campaign.workload,
        Path(place.checkpoint_root),
        device=place.device,
        threads=place.threads,
        commit_seconds=place.commit_seconds,
        lease=Lease(place.lease_seconds, renewed_here=False),
        fuse=parsed_fuse(str(place.fuse)),
        profile="fast" if place.profile == "fast" else "exact",
        crew=place.crew,
        allow_inexact=place.allow_inexact,
        quota=None if place.quota_bytes is None else Quota(place.quota_bytes, place.winners),
        study_file=Path(place.study_file),
    )
    with open_ledger(place.url, create=False) as ledger:
        known = backend.known
        mouth.say("ready", campaign=name)
        while (order := orders.get()) is not None:
            _check(known, identity_from(order.identity), place.study_file)
            backend.identifier.expect(order.study, [MoreCode(**one) for one in order.more_code])
            _train(ledger, backend, order, mouth)
            mouth.say("idle")


def _check(mine: Identity, launchers: Identity, study_file: str) -> None:
    """Raise StudyChanged where this process has another workload than the one that was launched."""
    different = changes(launchers, mine)
    if not different:
        return
    if all(words.endswith(" data changed") for words in different):
        raise StudyChanged(
            f"data() of {study_file} gives other data in each process ({'; '.join(different)}): seed what it draws "
            "from, and sort what has no order of its own; then launch again"
        )
    raise StudyChanged(
        f"{study_file} is not what was launched ({'; '.join(different)}): where a file was edited in the meantime, "
        "undo that, and launch again; a value that is drawn, or made of the time or of an address, differs in each "
        "process"
    )


def _train(ledger: Ledger, backend: InProcess, order: Order, mouth: Mouth) -> None:
    teller = Teller(mouth)

    def asked() -> bool:
        teller.breathe()
        return ENDING.is_set()

    backend.run(ledger, ledger.study(order.campaign, order.study), teller, asked)


class Teller:
    """A listener that tells the coordinator."""

    def __init__(self, mouth: Mouth) -> None:
        self.mouth = mouth
        self.breathed = 0.0

    def breathe(self) -> None:
        """Say that another step began, now and then."""
        now = time.monotonic()
        if now - self.breathed > ALIVE_SECONDS:
            self.breathed = now
            self.mouth.say("alive")

    def trial_started(self, claim: Claim) -> None:
        self.mouth.say(
            "started", trial=claim.trial.number, trial_id=claim.trial_id, fence=claim.fence, attempt=claim.attempt,
            step=claim.first_step,
        )  # fmt: skip

    def trial_stepped(self, claim: Claim, step: int) -> None:
        self.mouth.say("stepped", trial=claim.trial.number, step=step)

    def trial_ended(self, claim: Claim, update: TrialUpdate) -> None:
        best = next((kept for kept in update.checkpoints or () if kept.kind == "best"), None)
        told = None if best is None else [best.step, best.value]
        self.mouth.say(
            "ended", trial=claim.trial.number, state=update.state.value, reason=update.reason, step=update.step,
            best=told,
        )  # fmt: skip


if __name__ == "__main__":
    main()
