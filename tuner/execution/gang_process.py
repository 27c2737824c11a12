"""A rank of a gang that follows rank 0: `python -m tuner.execution.gang_process`.

It has no Ledger: it gets no address of the database and no password, claims nothing and records nothing. Its standard
input carries a `Setup` with its spot in the gang, later `STOP`, and `END`, after which rank 0 tells it to end. Where
the input ends without that, whoever started it has ended, and it ends at once. Messages come through a pipe of its own:
"alive", "ready" once it has joined, "fault" with an error, "stopped".

Exit codes: 0 where rank 0 has told it to end, 130 where a signal came before it had joined, else 1.
"""

import gc
import json
import os
import sys
import threading
import traceback
from collections.abc import Mapping
from typing import Any, TextIO, cast

from tuner import system
from tuner.errors import TunerError
from tuner.execution.channel import END, STOP, Channel, family_of
from tuner.execution.gang_lead import joined
from tuner.execution.loaded_workload import LoadedWorkload
from tuner.execution.remote_job import Setup, StudyTask, expect, setup_from
from tuner.execution.worker_process import own_input
from tuner.logs import escape_logs
from tuner.shown import shown_lines
from tuner.signals import EXIT_CODE, HANDING_OVER_SECONDS, SAVE_SECONDS, SHUTDOWN, ignore_signals, silent
from tuner.storage.codec import study_from, trial_from
from tuner.training.gang import Spot, spot_from
from tuner.training.gang_follower import follow
from tuner.training.setup import TrainingSetup
from tuner.training.sharding import follower_of

FAULT = 1  # the exit code after an error


def main() -> None:
    """Follow rank 0 until it says that this is the end. Raises SystemExit with the exit code."""
    system.end_with_the_parent()
    escape_logs()
    channel, given = Channel(os.dup(1)), own_input()
    os.dup2(2, 1)  # what user code prints must not get between our messages
    system.after_fork_in_child(SHUTDOWN.forget)
    code = _followed(channel, given)
    ignore_signals()
    gc.freeze()  # as in the command: nothing is searched for cycles at the end
    sys.exit(code)


def _followed(channel: Channel, given: TextIO) -> int:
    """Follow; the exit code."""
    told = False
    try:
        SHUTDOWN.listen(silent, save_seconds=SAVE_SECONDS - HANDING_OVER_SECONDS, alone=False)
        channel.send("alive")
        line = given.readline()
        if not line:
            return FAULT  # who asked for it is gone
        threading.Thread(target=_listen, args=(given,), daemon=True).start()
        with Mate(setup_from(json.loads(line))) as mate:
            channel.send("ready")
            with SHUTDOWN.in_hand(lambda: None):  # rank 0 says when all leave
                mate.follow()
                told = True
    except KeyboardInterrupt:
        ignore_signals()  # a later one, or a late STOP, would be a traceback of a process that ends anyway
        channel.send("stopped")
        return 0 if told else EXIT_CODE
    except SystemExit as error:  # of user code; 0 would say that rank 0 has told it
        return error.code if isinstance(error.code, int) and error.code else FAULT
    except TunerError as error:
        channel.send("fault", kind=family_of(error), name=type(error).__name__, text=str(error))
        return FAULT
    except Exception as error:  # text and never the object: it may not survive the journey
        sys.stderr.write(shown_lines(traceback.format_exc(), ""))
        channel.send("fault", kind="fault", text=f"{type(error).__name__}: {error}")
        return FAULT
    return 0


def _listen(stream: TextIO) -> None:
    """Obey STOP; end at once where the stream ends without END."""
    for line in stream:
        message = json.loads(line)
        if message == STOP:
            SHUTDOWN.tell()
        if message == END:
            return
    os._exit(FAULT)


class Mate:
    """A rank that has loaded the workload and joined its gang, until the block ends."""

    def __init__(self, setup: Setup) -> None:
        self.spot: Spot = spot_from(setup.spot or {})
        self.loaded: LoadedWorkload = setup.load()
        _ = self.loaded.identity  # reads the data
        self.gang = joined(self.spot, self.loaded)

    def __enter__(self) -> "Mate":
        return self

    def __exit__(self, *error: object) -> None:
        self.gang.close()

    def follow(self) -> None:
        """Do what rank 0 tells. Raises GangLost where it is gone, DeviceLost where this process can train no more."""
        follow(self.gang, self.setup_for, SHUTDOWN.is_set, trial_from, follower_of)

    def setup_for(self, told: Mapping[str, Any]) -> TrainingSetup:
        """The setup of a study as rank 0 tells it. Raises StudyChanged where the workload here is another one."""
        loaded, task, study = self.loaded, StudyTask(**told["task"]), study_from(told["study"])
        expect(task, loaded)
        return cast(TrainingSetup, loaded.setup(study, told["place"], SHUTDOWN.is_set, told["fingerprint"]))


if __name__ == "__main__":
    main()
