"""Commands as processes of their own, and a way to meet them at a known place: where they stop themselves."""

import os
import subprocess
import sys
import time

import psutil

PATIENCE = 120.0  # seconds, of a machine that is busy with something else


def started(folder, *arguments, program=("-m", "tuner"), stdin=subprocess.PIPE, **environment):
    """`tuner` with these arguments, in a folder."""
    command = [sys.executable, *program, *map(str, arguments)]
    pipes = dict.fromkeys(("stdout", "stderr"), subprocess.PIPE)
    return subprocess.Popen(command, cwd=folder, text=True, env=os.environ | environment, stdin=stdin, **pipes)


def wait_until_stopped(process):
    """Wait until the process stopped itself, at a failpoint say: where it is then, no clock decides."""
    seen, end = psutil.Process(process.pid), time.monotonic() + PATIENCE
    while seen.status() != psutil.STATUS_STOPPED:
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


def told(process):
    """Exit code and what was said on stderr, once it has ended."""
    _, err = process.communicate(timeout=PATIENCE)
    return process.returncode, err
