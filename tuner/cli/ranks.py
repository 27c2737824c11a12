"""A command that trains, as one of several that torchrun, srun or mpirun has started together.

That of rank 0 runs as ever, and then tells the others with which exit code all end. Those of the others start a process
for each gang, which follows rank 0; they read the study file, and open no records.
"""

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast

from tuner.cli.exit_codes import Exit, ending_of
from tuner.cli.output import say
from tuner.cli.sessions import check_options
from tuner.cli.training_options import TrainingOptions
from tuner.cli.watching import stop_on_signal
from tuner.design.stages import split_stage
from tuner.errors import Interrupted
from tuner.execution.channel import error_of, exit_words
from tuner.execution.launched_ranks import POLL_SECONDS, LaunchedFollower, LaunchedRanks
from tuner.execution.remote_job import Setup, setup_from
from tuner.execution.torchrun import Torchrun
from tuner.execution.worker_handle import MateHandle

WORD_SECONDS = 60.0  # for rank 0 to say how all end, once the process of a rank has ended
Run = Callable[[Any], int | None]


def among_ranks(options: TrainingOptions, run: Run) -> int | None:
    """Run a command, or follow that of rank 0."""
    place = cast(Torchrun, options.torchrun)
    return _led(options, run, place) if place.rank == 0 else _followed(options, place)


def _led(options: TrainingOptions, run: Run, place: Torchrun) -> int | None:
    """Run the command, and tell the others how it ended."""
    ranks = LaunchedRanks(place)
    code: int = Exit.INTERRUPTED
    try:
        done = run(replace(options, ranks=ranks))
        code = done or 0
    except Exception as error:
        code = ending_of(error)[1]
        raise
    finally:
        ranks.end(code)
    return done


def _followed(options: TrainingOptions, place: Torchrun) -> int:
    """Follow rank 0 until it ends; its exit code. Raises what the process here ended with, if rank 0 is gone."""
    check_options(options)
    code: int | None = None
    with stop_on_signal() as asked:
        commands = LaunchedFollower(place, asked.is_set)
        rank = _Rank(options, place, commands)
        try:
            with asked.in_hand(rank.kill):  # rank 0 says when all leave
                while (code := commands.end_code()) is None:
                    rank.look(stopping=asked.is_set())
                    time.sleep(POLL_SECONDS)
        except KeyboardInterrupt:
            if code is None:
                raise
        finally:
            rank.close()
    return code


class _Rank:
    """The process of this rank in the present gang, if there is one."""

    def __init__(self, options: TrainingOptions, place: Torchrun, commands: LaunchedFollower) -> None:
        self.options, self.place, self.commands = options, place, commands
        self.process: MateHandle | None = None
        self.stopped = False
        self.failed: Exception | None = None
        self.failed_at = 0.0

    def look(self, *, stopping: bool) -> None:
        """Start the process that rank 0 asks for, pass on that all are to stop, notice its end."""
        if self.process is None:
            self._begin()
        if self.process is not None:
            if stopping and not self.stopped:
                self.stopped = True
                self.process.ask_to_stop()
            self._notice_end(self.process)
        if self.failed is not None and time.monotonic() - self.failed_at > WORD_SECONDS:
            raise self.failed
        if stopping and self.process is None and self.failed is None:
            raise Interrupted("stopped; run all ranks again to go on")

    def _begin(self) -> None:
        told = self.commands.next_start()
        if told is None:
            return
        self.process = MateHandle(self._setup(setup_from(told)), self.options.fork_server)

    def _setup(self, told: Setup) -> Setup:
        """What rank 0 loads, with the study file and the device of this rank."""
        device = self.commands.device(self.options.device)
        machine = replace(told.machine, device=device, threads=self.options.threads)
        return replace(told, study_file=split_stage(self.options.study)[0].resolve(), machine=machine)

    def _notice_end(self, process: MateHandle) -> None:
        faults = process.faults()
        for fault in faults:
            self.failed = error_of(fault["kind"], fault.get("name", ""), fault["text"])
        code = process.exit_code
        if code is None:
            return
        process.close()
        self.process = None
        if code == 0 and self.failed is None:
            return  # rank 0 has told it to end
        self.failed = self.failed or error_of("paused", "", f"its process {exit_words(code)}")
        self.failed_at = time.monotonic()
        say(f"rank {self.place.rank}: {self.failed}")
        self.commands.tell_lost(code, str(self.failed))

    def close(self) -> None:
        """End the process, where it still runs: rank 0 has ended."""
        if self.process is not None:
            self.process.close()

    def kill(self) -> None:
        """End the process at once."""
        if self.process is not None:
            self.process.kill()
