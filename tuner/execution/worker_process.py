"""A worker process: `python -m tuner.execution.worker_process`, which gets its tasks on its standard input.

It claims trials from the Ledger itself and reports to its coordinator how they go. It ends with its coordinator: by a
signal of the kernel on Linux, and everywhere because its standard input ends.
"""

import gc
import json
import os
import queue
import sys
import threading
import time
import traceback
from typing import TextIO

from tuner import system
from tuner.errors import Interrupted, TunerError
from tuner.execution.channel import END, STOP, Channel, family_of
from tuner.execution.gang_lead import leading
from tuner.execution.in_process import InProcess
from tuner.execution.remote_job import Setup, StudyTask, job_of, setup_from
from tuner.logs import escape_logs
from tuner.records import Claim, TrialUpdate
from tuner.shown import shown_lines
from tuner.signals import HANDING_OVER_SECONDS, SAVE_SECONDS, SHUTDOWN, ignore_signals, silent
from tuner.storage.store import open_ledger

ALIVE_SECONDS = 1.0


def main() -> None:
    """Work until there are no more tasks, or somebody says stop."""
    system.end_with_the_parent()
    escape_logs()
    channel, given = Channel(os.dup(1)), own_input()
    os.dup2(2, 1)  # what user code prints must not get between our messages
    system.after_fork_in_child(SHUTDOWN.forget)
    try:
        SHUTDOWN.listen(silent, save_seconds=SAVE_SECONDS - HANDING_OVER_SECONDS, alone=False)
        channel.send("alive")
        line = given.readline()
        if not line:
            return  # the coordinator is gone already
        tasks: queue.Queue[StudyTask | None] = queue.Queue()
        threading.Thread(target=_read_tasks, args=(given, tasks), daemon=True).start()
        _work(setup_from(json.loads(line)), tasks, channel)
    except (Interrupted, KeyboardInterrupt):
        ignore_signals()  # a later one, or a late STOP, would be a traceback of a process that ends anyway
        channel.send("stopped")
    except TunerError as error:
        channel.send("fault", kind=family_of(error), name=type(error).__name__, text=str(error))
    except Exception as error:  # text and never the object: it may not survive the journey
        sys.stderr.write(shown_lines(traceback.format_exc(), ""))
        channel.send("fault", kind="fault", text=f"{type(error).__name__}: {error}")
    ignore_signals()
    gc.freeze()  # as in the command: nothing is searched for cycles at the end


def own_input() -> TextIO:
    """The standard input as a stream that user code does not see.

    A process that is forked here closes `sys.stdin` first, and would wait for ever for the thread that reads it.
    """
    given = os.fdopen(os.dup(0), encoding="utf-8")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115 - for the life of the process
    return given


def _read_tasks(stream: TextIO, tasks: "queue.Queue[StudyTask | None]") -> None:
    """Pass tasks on; STOP is obeyed at once. Where the stream ends without END, the coordinator has ended."""
    for line in stream:
        message = json.loads(line)
        if message == STOP:
            SHUTDOWN.tell()
            continue
        if message == END:
            tasks.put(None)
            return
        tasks.put(StudyTask(**message))
    os._exit(1)


def _work(setup: Setup, tasks: "queue.Queue[StudyTask | None]", channel: Channel) -> None:
    loaded = setup.load()
    with open_ledger(setup.url, create=False, relay=setup.relay) as ledger:
        _ = loaded.identity  # reads the data
        with leading(setup.spot, loaded) as gang:
            channel.send("ready")
            reporter = Reporter(channel)
            stop = reporter.stop if gang is None else gang.stop(reporter.stop)
            while (task := tasks.get()) is not None:
                job = job_of(task, ledger, loaded)
                if gang is not None:
                    gang.begin(job, task)
                InProcess().run(job, reporter, stop)
                channel.send("idle")


class Reporter:
    """A listener that reports to the coordinator."""

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self.last_sign = 0.0

    def stop(self) -> bool:
        """Whether this process was told to end; asked at every step, which is a sign of life to report now and then."""
        now = time.monotonic()
        if now - self.last_sign > ALIVE_SECONDS:
            self.last_sign = now
            self.channel.send("alive")
        return SHUTDOWN.is_set()

    def trial_started(self, claim: Claim) -> None:
        self.channel.send(
            "started", trial=claim.trial.number, trial_id=claim.trial_id, fence=claim.fence, attempt=claim.attempt,
            step=claim.first_step, begun_under=claim.begun_under,
        )  # fmt: skip

    def trial_stepped(self, claim: Claim, step: int) -> None:
        self.channel.send("stepped", trial=claim.trial.number, step=step)

    def trial_ended(self, claim: Claim, update: TrialUpdate) -> None:
        best = next((kept for kept in update.checkpoints or () if kept.kind == "best"), None)
        self.channel.send(
            "ended", trial=claim.trial.number, state=update.state.value, reason=update.reason, step=update.step,
            best=None if best is None else [best.step, best.value],
        )  # fmt: skip


if __name__ == "__main__":
    main()
