"""The state of a training whose tensors are in shards: one part for each rank, and the whole of them again.

A tensor is cut along its first dimension, as `torch.chunk` cuts it: rank r of W has rows r*c to (r+1)*c, c = ceil(n/W).
In a state a dict stands in place of such a part. The part of rank 0 is the checkpoint of the trial: it names the files
of the other ranks, with their digests.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from tuner.errors import CorruptCheckpoint
from tuner.records import Checkpoint
from tuner.stores.places import StoredPath
from tuner.training.checkpoints import SHARDS, read_state, shards_of

_PART, _ROWS = "__shard__", "rows"  # the keys of the dict that stands for a part: its rows, and how many there are
CUT = ("model", "optimizer", "averages")  # the entries of a state that have parts


def rows_of(total: int, rank: int, world: int) -> slice:
    """The rows of a tensor that a rank has."""
    each = -(-total // world)
    return slice(min(rank * each, total), min((rank + 1) * each, total))


def part(rows: torch.Tensor, total: int) -> dict[str, Any]:
    """What stands for a part of a tensor."""
    return {_PART: rows, _ROWS: total}


def is_part(value: object) -> bool:
    """Whether a dict stands for a part of a tensor."""
    return isinstance(value, Mapping) and value.keys() == {_PART, _ROWS}


def own_rows(value: Any) -> Any:
    """The same containers, with the rows themselves where something stands for them."""
    return joined([value])


def joined(parts: Sequence[Any]) -> Any:
    """Nested containers of all ranks as one, each tensor whole; what was not cut is that of the first one."""
    first = parts[0]
    if is_part(first):
        return torch.cat([one[_PART] for one in parts]) if len(parts) > 1 else first[_PART]
    if isinstance(first, Mapping):
        return {key: joined([one[key] for one in parts]) for key in first}
    if isinstance(first, list | tuple):
        return type(first)(joined(list(items)) for items in zip(*parts, strict=True))
    return first


def is_cut(state: Mapping[str, Any]) -> bool:
    """Whether a training state is the part of one rank."""
    return SHARDS in state


def whole_state_of(root: StoredPath, state: Mapping[str, Any]) -> dict[str, Any]:
    """The whole of a state that is cut, from the files of all ranks; any other as it is.

    Raises CorruptCheckpoint where one is missing or damaged, or is not the part that it should be.
    """
    if not is_cut(state):
        return dict(state)
    parts = [state, *(part_from(root, file, state) for file in shards_of(state))]
    if len(parts) != state[SHARDS]["world"]:
        raise CorruptCheckpoint(f"{len(parts)} of {state[SHARDS]['world']} parts of the state are named")
    found = {name: joined([one[name] for one in parts]) for name in CUT if name in state}
    return {**{name: value for name, value in state.items() if name != SHARDS}, **found}


def part_from(root: StoredPath, file: Checkpoint, state: Mapping[str, Any]) -> dict[str, Any]:
    """The part of another rank. state: that of rank 0, which names the file. Raises CorruptCheckpoint."""
    found = read_state(root, file)
    cut = found.get(SHARDS, {})
    rank = int(file.kind.rpartition("-")[2])
    if (cut.get("rank"), cut.get("world"), found.get("step")) != (rank, state[SHARDS]["world"], state["step"]):
        raise CorruptCheckpoint(f"{root / file.file} is not part {rank} of the state at step {state['step']}")
    return found
