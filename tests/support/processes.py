"""Commands as processes of their own, and a way to meet them at a known place: where they stop themselves."""

import os
import subprocess
import sys

import psutil

from support.patience import all_said, wait_for


def started(folder, *arguments, program=("-m", "tuner"), stdin=subprocess.PIPE, **environment):
    """`tuner` with these arguments, in a folder."""
    command = [sys.executable, *program, *map(str, arguments)]
    pipes = dict.fromkeys(("stdout", "stderr"), subprocess.PIPE)
    return subprocess.Popen(command, cwd=folder, text=True, env=os.environ | environment, stdin=stdin, **pipes)


def wait_until_stopped(process):
    """Wait until the process stopped itself, at a failpoint say: where it is then, no clock decides."""
    seen = psutil.Process(process.pid)
    wait_for(lambda: seen.status() == psutil.STATUS_STOPPED, alive=[process])


def told(process):
    """Exit code and what was said on stderr, once it has ended."""
    _, err = all_said(process)
    return process.returncode, err
