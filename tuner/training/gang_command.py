"""A command of rank 0 of a gang: each rank does the same, then all report how that went.

So an error on any rank is that of the trial, with the rank in its reason, and all ranks are at one place again. Where
several have failed, the machine's faults come before those of the code: nothing is then recorded of the trial, and an
error of the trial comes again when it is resumed.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from tuner import errors
from tuner.errors import DeviceLost, GangLost, Infeasible, InputError, Interrupted, Paused, TunerError
from tuner.failpoints import failpoint
from tuner.records import Numerics, State
from tuner.training.endings import RankFailed, RankOutOfMemory, ending, is_out_of_memory
from tuner.training.gang import Gang, MateFailed

# What decides where several ranks have failed, the first ones first.
_KINDS = (DeviceLost, Paused, Interrupted, InputError, TunerError)
_OF_THE_TRIAL = {State.INFEASIBLE: len(_KINDS), State.FAILED: len(_KINDS) + 1}


@dataclass(slots=True)
class Said:
    """What a rank says at the end of a command. of_all: what all have said, by rank; known at rank 0 alone.

    same: values by name that have to be equal on all ranks. data: whatever rank 0 needs of it.
    """

    same: dict[str, str] = field(default_factory=dict)
    data: bytes = b""
    failed: dict[str, Any] = field(default_factory=dict)
    of_all: "list[Said]" = field(default_factory=list)

    def report(self) -> bytes:
        """As it is sent."""
        return json.dumps({"same": self.same, "failed": self.failed}).encode() + b"\n" + self.data

    def differing(self, name: str) -> list[int]:
        """The ranks that say another value of this name than rank 0."""
        return [rank for rank, said in enumerate(self.of_all) if said.same.get(name) != self.same.get(name)]


def said_in(report: bytes) -> Said:
    """The value that `Said.report` wrote."""
    head, _, data = report.partition(b"\n")
    told = json.loads(head)
    return Said(told["same"], data, told["failed"])


@contextmanager
def command(gang: Gang, do: str, **fields: object) -> Iterator[Said]:
    """At rank 0: tell the others to do what the block does here, and wait until all have.

    Raises the error of the block, or what another rank has failed with; GangLost where one does not answer.
    """
    gang.tell(do, **fields)
    said = Said()
    failure: Exception | None = None
    try:
        yield said
    except GangLost:
        raise
    except Exception as error:
        failure, said.failed = error, failed_with(error)
    try:
        failpoint("gang-reporting")
        said.of_all = [said_in(report) for report in gang.gathered(said.report())]
        if any(one.failed.get("error") == Interrupted.__name__ for one in said.of_all[1:]):
            gang.ask_to_stop()
        _raise_what_decides(said.of_all, failure)
    finally:
        del failure  # it holds the frames, and they hold tensors


def _raise_what_decides(said: list[Said], mine: Exception | None) -> None:
    failed = [(one.failed["weight"], rank) for rank, one in enumerate(said) if one.failed]
    if not failed:
        if mine is not None:  # only that another one has failed
            raise GangLost("a rank of the gang has failed without saying why") from mine
        return
    _, rank = min(failed)
    if rank == 0 and mine is not None:
        raise mine
    raise _error_of(rank, said[rank].failed)


def failed_with(error: Exception) -> dict[str, Any]:
    """How a command failed on this rank, for the others; nothing where another rank has failed."""
    if isinstance(error, MateFailed):
        return {}
    try:
        state, text = ending(error)
    except OSError as fault:  # a full disk, say
        where = f" at {fault.filename}" if fault.filename else ""
        text = (
            f"{fault.strerror or fault}{where}: no trial is to blame and nothing committed is lost; make room or mend "
            "the disk, then run the same command again"
        )
        return {"weight": _KINDS.index(Paused), "error": Paused.__name__, "text": text}
    except TunerError as fault:
        weight = next(place for place, kind in enumerate(_KINDS) if isinstance(fault, kind))
        return {"weight": weight, "error": _known(type(fault)).__name__, "text": str(fault)}
    told = {"weight": _OF_THE_TRIAL[state], "state": state.value, "text": text}
    return told | {"memory": is_out_of_memory(error) and not isinstance(error, Infeasible)}


def _known(kind: type[TunerError]) -> type[TunerError]:
    """The class itself, or the next one above it that all processes know."""
    above = [one for one in kind.__mro__ if issubclass(one, TunerError)]
    known: type[TunerError] = next(one for one in above if getattr(errors, one.__name__, None) is one)
    return known


def _error_of(rank: int, told: Mapping[str, Any]) -> Exception:
    text = f"on rank {rank}: {told['text']}"
    if "state" in told:
        kind = RankOutOfMemory if told["memory"] else RankFailed
        return kind(State(told["state"]), text)
    found: type[TunerError] = getattr(errors, told["error"])
    return found(text)


def lead_study(gang: Gang, fields: Mapping[str, Any], numerics: Numerics) -> None:
    """At rank 0, before the trials of a study: have the others load the same study.

    fields: what they make its setup of, as JSON. Raises StudyChanged where a rank has another study, or would compute
    other bits, and whatever one meets in loading it.
    """
    with command(gang, "study", fields=dict(fields), numerics=numerics.text):
        pass
