"""Launches as a scheduler sees them: many processes, each of which waits at a known step while signals come."""

import os
import signal

import psutil

from support.patience import wait_for
from support.processes import started, told
from support.study_files import write_study

# Each process waits at its 40th loss, or at some batch of an evaluation, until the test lets it go on.
GATE = """
        calls.append(0)
        folder = Path(__file__).parent
        if len(calls) == {}:
            (folder / f"here-{{os.getpid()}}").touch()
            while not (folder / "go").exists():
                time.sleep(0.01)
        """
LOSS = "return F.cross_entropy(model(batch[0]), batch[1])"
METRICS = "logits = model(batch[0])\n        wrong"
# `tuner`, but who insists is heard after so many seconds, and what is not saved after so many is given up.
PROGRAM = """
from tuner import signals
from tuner.cli import main

signals.INSIST_SECONDS, signals.SAVE_SECONDS = {}, {}
{}
main()
"""
WHOLE = 1e6  # seconds: for ever


class Job:
    """A launch in a folder, and all of its processes once those that train wait at their gates."""

    def __init__(self, folder, *options, insist=WHOLE, save=WHOLE, batch=None, more=""):
        self.folder = folder
        write_gated(folder, batch)
        program = ("-c", PROGRAM.format(insist, save, more))
        self.launch = started(folder, "launch", "tiny.py", *options, program=program)
        self.step = psutil.Process(self.launch.pid)

    def gated(self, count):
        """Wait until so many processes train; all processes of the launch: it first, then the workers, by their id."""
        wait_for(lambda: len(list(self.folder.glob("here-*"))) >= count, alive=[self.launch])
        self.family = [self.step, *self.step.children(recursive=True)]
        return self.family

    def workers(self):
        pids = [int(path.name.removeprefix("here-")) for path in self.folder.glob("here-*")]
        return [one for one in self.family if one.pid in pids]

    def fork_server(self):
        (server,) = {one.pid for one in self.family} - {one.pid for one in (self.step, *self.workers())}
        return psutil.Process(server)

    def heard(self, word):
        """Wait until the launch says something like it."""
        for line in iter(self.launch.stderr.readline, ""):
            if word in line:
                return
        raise AssertionError(f"it ended without saying {word!r}")

    def go(self):
        """Let it go on; its exit code and its words. None of its processes is left."""
        (self.folder / "go").touch()
        code, err = told(self.launch)
        wait_for(lambda: all_gone(self.family[1:]))
        return code, err


def all_gone(family):
    """Whether each of some processes is over; nobody may have asked yet how it ended."""
    return not [one for one in family if one.is_running() and one.status() != psutil.STATUS_ZOMBIE]


def write_gated(folder, batch=None):
    """A study whose processes wait at a loss, or at this batch of their evaluations, which have eight.

    The first look takes about a dozen losses.
    """
    folder.mkdir(exist_ok=True)
    replace = [
        ("\n\nclass Tiny", "\nimport os\nimport time\nfrom pathlib import Path\n\ncalls = []\n\n\nclass Tiny"),
        ("    batch_size = 8", "    batch_size, evaluation_batch_size = 8, 10"),
    ]
    if batch is None:
        replace.append((LOSS, f"{GATE.format(48).strip()}\n        {LOSS}"))
    else:
        gate = GATE.format(batch).replace("calls.append(0)", "calls.extend([0] * (len(batch[0]) == 10))").strip()
        replace.append((METRICS, f"{gate}\n        {METRICS}"))
    write_study(folder, trials=4, steps=200, replace=replace)


def send(processes, *numbers):
    """Each signal to each process, as SLURM does: all of the first kind, then all of the next."""
    for number in numbers:
        for process in processes:
            os.kill(process.pid, number)


SLURM = (signal.SIGTERM, signal.SIGCONT, signal.SIGTERM)
