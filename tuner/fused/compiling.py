"""Compiling the recorded graph of a group with torch.compile: faster after some seconds, other bits, repeatable."""

import logging
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from tuner.fused.group import Group
from tuner.fused.recording import Recording

_log = logging.getLogger(__name__)
PAYS_AFTER = 40.0  # seconds of training ahead: compiling takes five to ten
COMPILERS = ("g++", "clang++")


def compile_group(group: Group) -> bool:
    """Compile what the group computes at each step; says so in the log where there is no compiler for that."""
    if group.setting.device.type == "cpu" and cpp_compiler() is None:
        _log.warning(
            "no C++ compiler (%s, or the one that $CXX names) is found: --profile fast trains without torch.compile, "
            "which is slower; install one (apt-get install g++) to have it", " or ".join(COMPILERS)
        )  # fmt: skip
        return False
    group.transform(_compiled)
    return True


def cpp_compiler() -> str | None:
    """The compiler that torch would call."""
    named = os.environ.get("CXX")
    return next((found for name in ([named] if named else COMPILERS) if (found := shutil.which(name))), None)


def _compiled(recording: Recording) -> Recording:
    if recording.recurrent:  # its kernels know nothing of compiling
        return recording
    options: dict[str, Any] = {"compile_threads": 1}  # no processes that outlive us
    compiled = torch.compile(recording.graph.forward, fullgraph=True, dynamic=False, options=options)
    return replace(recording, compiled=_Compiled(compiled, recording))


class _Compiled:
    """A compiled replay. Compiling begins with the first call; where it fails, the graph is replayed as it is."""

    def __init__(self, compiled: Callable[..., Any], recording: Recording) -> None:
        self._replay = compiled
        self._plain = recording.replay

    def __call__(self, *inputs: torch.Tensor) -> Any:
        if self._replay is self._plain:
            return self._plain(*inputs)
        try:
            return self._replay(*inputs)
        except Exception as error:  # torch's compiler is imported only when it is used
            if not isinstance(error, torch._dynamo.exc.TorchDynamoException):
                raise
            _log.warning("a group cannot be compiled, and is trained without that: %s", str(error).split("\n")[0])
            self._replay = self._plain
            return self._plain(*inputs)
