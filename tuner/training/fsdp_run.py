"""A trial whose model is in shards (FSDP2): each rank has its rows of every parameter, and of the optimizer's state.

Rank 0 keeps the books, as of any trial; a state is saved by all ranks, each its own part.
"""

import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor

from tuner.design.optimizers import ParameterGroup
from tuner.design.trial import Trial
from tuner.records import Checkpoint
from tuner.training.averages import Averages
from tuner.training.checkpoints import SHARDS, CheckpointFolder, shards_of, state_in, write_state_to
from tuner.training.engine import Measured, Weights
from tuner.training.evaluation import Tally, checked_metrics
from tuner.training.extra_state import as_bytes, dense
from tuner.training.fsdp_group import group_of
from tuner.training.fsdp_state import CUT, is_cut, own_rows, part, part_from, rows_of, whole_state_of
from tuner.training.fsdp_units import Shard, model_and_units, shard
from tuner.training.fsdp_update import ShardUpdate, norm_over
from tuner.training.gang import Flag, Gang
from tuner.training.gang_command import Said, command
from tuner.training.gang_follower import Decode, Follower, Stop
from tuner.training.gang_run import Ganged, GangRun, LeadRun
from tuner.training.groups import TrainedGroup
from tuner.training.models import initial_weights
from tuner.training.precision import computing
from tuner.training.setup import TrainingSetup
from tuner.training.trial_run import TrialRun

Rows = Mapping[str, torch.Tensor]


class InShardsRun(GangRun):
    """A trial as each rank has it. shards: of all parameters, in the order of the model."""

    shards: Sequence[Shard]

    def built(self) -> nn.Module:
        """The model, made whole on the CPU from the seed of the trial, then cut, a unit at a time."""
        setup, trial = self.setup, self.trial
        self.group = group_of(self.gang)  # first: all ranks come together for it
        model, units = model_and_units(setup, trial)
        self._digest = initial_weights(model)
        self.kind_of_update = partial(ShardUpdate, self)
        self._norms_now: tuple[float, float] | None = None  # of the last gradient, and of the weights after it
        self.shards = shard(model, units, DeviceMesh.from_group(self.group.group, setup.device.type))
        return model

    def trained(self) -> list[nn.Parameter]:
        """The rows of this rank of what is trained."""
        return [one.rows for one in self.shards if one.parameter.requires_grad]

    def for_optimizer(self, group: TrainedGroup) -> ParameterGroup:
        """The group with the rows of this rank."""
        rows = {id(one.parameter): one.rows for one in self.shards}
        whole = group.for_optimizer()
        whole["params"] = [rows[id(one)] for one in whole["params"]]
        return whole

    def note_initial(self) -> None:
        """The digest of the weights before they were cut; none of the first loss, which needs a whole batch."""
        self.initial, self.first_loss = self._digest, ""
        if self.averages is not None:
            _on_rows(self.averages, self.trained())

    def advance_together(self, until: int, wish: Callable[[], Flag]) -> bool:
        """As that of a gang; an error of one rank ends the exchanges of all."""
        gang, before = self.gang, self.step
        gang.leaving, gang.wish = Flag.GO, wish
        with self.group.together():
            stopped = TrialRun.advance(self, until, lambda: gang.leaving is Flag.PAUSE)
            if self.step > before:
                self._note_norms()
        return stopped

    def _note_norms(self) -> None:
        """Norms of the last gradient and of the weights, over all ranks: looked at when rank 0 does so alone."""
        gradients = [one.grad for one in self.parameters if one.grad is not None]
        norms = [norm_over(self.group, rows, self.setup.device) for rows in (gradients, self.parameters)]
        gradient, weights = torch.stack(norms).tolist()
        self._norms_now = gradient, weights

    def _norm_as_taken(self) -> float:
        return self.gradient_norm if self._norms_now is None else self._norms_now[0]

    def watched(self) -> Sequence[torch.Tensor]:
        """A tensor with the norm of all weights, as they were at the end of the last block of updates."""
        return [] if self._norms_now is None else [torch.tensor(self._norms_now[1])]

    def out_of_memory(self) -> str:
        """Nothing: what the other ranks hold is not looked at."""
        return ""

    def frozen(self) -> Weights:
        """Nothing: each rank has its rows of what is frozen, too, and saves them."""
        return {}

    # State

    def state(self) -> dict[str, Any]:
        """The part of this rank of everything that the rest of the trial depends on."""
        self._let_go()
        state = super(GangRun, self).state()
        state["model"] = {name: one for name, one in state["model"].items() if not isinstance(one, DTensor)}
        state["model"] |= {one.name: part(one.rows.detach(), one.total) for one in self.shards}
        state["optimizer"] = {**state["optimizer"], "state": self._parts_of_optimizer(state["optimizer"])}
        if self.averages is not None:
            totals = {one.name: one.total for one in self.shards}
            state["averages"] = {name: part(one, totals[name]) for name, one in state["averages"].items()}
        cut = {"how": "fsdp2", "rank": self.gang.rank, "world": self.gang.world, "files": []}
        return {**state, SHARDS: cut}

    def _parts_of_optimizer(self, state: Mapping[str, Any]) -> dict[int, Any]:
        """The state of each parameter: what has the form of its rows is a part."""
        totals = {id(one.rows): (one.rows.shape, one.total) for one in self.shards}
        held = {}
        for at, parameter in enumerate(self._in_order()):
            shape, total = totals[id(parameter)]
            found = state["state"].get(at, {})
            held[at] = {name: part(one, total) if _has(one, shape) else one for name, one in found.items()}
        return {at: found for at, found in held.items() if found}

    def _in_order(self) -> list[nn.Parameter]:
        return [parameter for group in self.optimizer.param_groups for parameter in group["params"]]

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on from the part of this rank, or from a whole state, of which it takes its rows."""
        rows = {name: own_rows(state[name]) for name in CUT if name in state} if is_cut(state) else self._cut(state)
        super(GangRun, self).load({**{name: one for name, one in state.items() if name != SHARDS}, **rows})

    def put_model(self, saved: Rows) -> None:
        """Give the model its rows and its buffers. Raises LookupError or ValueError where they do not fit."""
        buffers = dict(self.model.named_buffers())
        targets = {one.name: one.rows.detach() for one in self.shards} | buffers
        missing = [name for name in targets if name not in saved]
        if missing:
            raise LookupError(f"the saved state lacks {', '.join(missing[:3])}")
        with torch.no_grad():
            for name, target in targets.items():
                if target.shape != saved[name].shape:
                    raise ValueError(f"the saved {name} has the form {tuple(saved[name].shape)}")
                target.copy_(saved[name])

    def _cut(self, whole: Mapping[str, Any]) -> dict[str, Any]:
        """The rows of this rank of a whole state."""
        shapes = {id(one.rows): tuple(one.parameter.shape) for one in self.shards}
        totals = {one.name: one.total for one in self.shards}
        found: dict[str, Any] = {
            name: {key: self._rows(one) if key in totals else one for key, one in whole[name].items()}
            for name in ("model", "averages")
            if name in whole
        }
        held = {
            at: {
                name: self._rows(one) if _has(one, shapes[id(parameter)]) else one
                for name, one in whole["optimizer"]["state"].get(at, {}).items()
            }
            for at, parameter in enumerate(self._in_order())
        }
        held = {at: state for at, state in held.items() if state}
        return found | {"optimizer": {**whole["optimizer"], "state": held}}

    def _rows(self, whole: torch.Tensor) -> torch.Tensor:
        return whole[rows_of(len(whole), self.gang.rank, self.gang.world)].clone()

    def written_part(self, place: str, fence: int) -> Checkpoint:
        """Write the part of this rank, durably."""
        state = self.state()
        kept = {name: state[name] for name in (SHARDS, "step", *CUT) if name in state}
        folder = CheckpointFolder(self.setup.checkpoint_root, place, fence)
        return folder.write_shard(self.gang.rank, self.gang.world, self.step, kept)

    # What all ranks do for rank 0

    def gathered_weights(self, into: Weights | None = None) -> Weights:
        """The weights that are evaluated, whole, on the CPU of rank 0, one after the other; nothing elsewhere."""
        self._let_go()
        found: Weights = {}
        with self.shown(), torch.no_grad():
            for name, value in self.model.state_dict().items():
                whole = value.full_tensor() if isinstance(value, DTensor) else value
                if self.gang.rank == 0:
                    found[name] = _kept(whole, None if into is None else into.get(name))
        return found

    def evaluated_here(self) -> dict[str, Any]:
        """What this rank has computed of the metrics of both splits: batch r of every `world`, by its number.

        All ranks compute as many batches, because each gathers the model for all; what is too much is dropped.
        """
        setup = self.setup
        self.seed_evaluation()
        found = {}
        with self.group.together(), self.shown():
            self.model.eval()
            for split in (setup.data.training_sample, setup.data.validation):
                with computing(self.rule.precision, setup.device), torch.no_grad():
                    found[split.name] = self._of_split(split)
        return found

    def _of_split(self, split: Any) -> list[Any]:
        world, rank = self.gang.world, self.gang.rank
        found: list[Any] = []
        waiting: list[Any] = []
        last: Any = None
        for batch, count in split.in_order(self.setup.evaluation_batch_size):
            waiting.append((batch, count))
            if len(waiting) == world:
                found.append(self._of_batch(*waiting[rank]))
                last, waiting = waiting[rank], []
        if waiting:
            is_mine = rank < len(waiting)
            measured = self._of_batch(*(waiting[rank] if is_mine else (last or waiting[0])))
            found += [measured] * is_mine
        return found

    def _of_batch(self, batch: Any, count: int) -> list[Any]:
        metrics = checked_metrics(self.setup.workload, self.model, batch, count)
        return [count, {name: _on_cpu(values) for name, values in metrics.items()}]

    def _let_go(self) -> None:
        """Have no parameter gathered, whatever ended in the midst of a pass."""
        for module in self.model.modules():
            reshard: Any = getattr(module, "reshard", None)
            if callable(reshard):
                reshard()


class ShardFollower(InShardsRun):
    """A trial in shards at a rank that follows."""

    def __init__(self, setup: TrainingSetup, trial: Trial, gang: Gang) -> None:
        self.gang = gang
        super().__init__(setup, trial, gang)

    def load_told(self, common: dict[str, Any]) -> None:
        """Load what rank 0 has sent: a whole state, or all but the parts, of which this rank reads its own."""
        if is_cut(common):
            own = part_from(self.setup.checkpoint_root, shards_of(common)[self.gang.rank - 1], common)
            common |= {name: own[name] for name in CUT if name in own}
        self.load(common)


class ShardLead(InShardsRun, LeadRun):
    """The same at rank 0, which the supervisor trains."""

    def __init__(self, engine: Ganged, trial: Trial) -> None:
        self.gang = engine.gang
        LeadRun.__init__(self, engine, trial)

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on from a saved state, on all ranks. One of as many ranks each rank reads for itself."""
        is_alike = is_cut(state) and state[SHARDS]["world"] == self.gang.world
        mine = dict(state) if is_alike else whole_state_of(self.setup.checkpoint_root, state)
        file = io.BytesIO()
        write_state_to(file, {name: one for name, one in mine.items() if not (is_alike and name in CUT)})
        with command(self.gang, "load"):
            self.gang.send(file.getbuffer())
            InShardsRun.load(self, mine)

    def state(self) -> dict[str, Any]:
        """The part of rank 0; that of each other rank differs."""
        return InShardsRun.state(self)

    def write_shards(self, place: str, fence: int) -> Sequence[Checkpoint]:
        """Have the other ranks write their parts, durably."""
        with command(self.gang, "part", place=place, fence=fence) as said:
            pass
        return [Checkpoint(**json.loads(one.data)) for one in said.of_all[1:]]

    def weights(self, into: Weights | None = None) -> Weights:
        """The evaluated weights, whole, on the CPU."""
        with command(self.gang, "weights"):
            return self.gathered_weights(into)

    def evaluated(self, stop: Callable[[], bool] | None = None) -> tuple[Measured, list[Tally]]:
        """As that of a trial alone, each rank with its share of the batches; added up in the order of the split.

        It is not stopped in between: all ranks gather the model for each batch.
        """
        with command(self.gang, "evaluate") as said:
            parts = [self.evaluated_here()]
        parts += [state_in(one.data) for one in said.of_all[1:]]
        measured: Measured = {}
        tallies = []
        for split in (self.setup.data.training_sample, self.setup.data.validation):
            tallies.append(Tally(self.setup.workload, split))
            shares = [of_rank[split.name] for of_rank in parts]
            for number in range(sum(map(len, shares))):
                count, metrics = shares[number % len(shares)][number // len(shares)]
                tallies[-1].add({name: _on(values, self.setup.device) for name, values in metrics.items()}, count)
            measured |= tallies[-1].measured()
        return measured, tallies


class InShards(Ganged):
    """The engine of trials whose models are in shards, at rank 0."""

    def made(self, trial: Trial) -> ShardLead:
        """The trial before its first step, at rank 0."""
        return ShardLead(self, trial)


class FollowerInShards(Follower):
    """What a rank other than 0 does of them."""

    def __init__(self, setup: TrainingSetup, gang: Gang, stop: Stop, decode: Decode) -> None:
        super().__init__(setup, gang, stop, decode)
        self.commands |= {"part": self.part, "weights": self.weights}

    @property
    def in_shards(self) -> ShardFollower:
        run = self.run
        if not isinstance(run, ShardFollower):
            raise TypeError("a trial in shards was begun otherwise")
        return run

    def made(self, trial: Trial) -> GangRun:
        """The trial before its first step."""
        return ShardFollower(self.setup, trial, self.gang)

    def load(self, heard: Mapping[str, Any], said: Said) -> None:
        content = self.gang.received()
        self.in_shards.load_told(state_in(content))
        self.forget()

    def evaluate(self, heard: Mapping[str, Any], said: Said) -> None:
        file = io.BytesIO()
        write_state_to(file, self.in_shards.evaluated_here())
        said.data = file.getvalue()

    def part(self, heard: Mapping[str, Any], said: Said) -> None:
        said.data = json.dumps(asdict(self.in_shards.written_part(heard["place"], heard["fence"]))).encode()

    def weights(self, heard: Mapping[str, Any], said: Said) -> None:
        self.in_shards.gathered_weights()


def _on_rows(averages: Averages, rows: Sequence[nn.Parameter]) -> None:
    """Have averages be of rows."""
    averages.parameters = list(rows)
    averages.values = [one.detach().float().clone() for one in rows]


def _has(value: object, shape: Sequence[int]) -> bool:
    return isinstance(value, torch.Tensor) and tuple(value.shape) == tuple(shape)


def _kept(value: Any, room: torch.Tensor | None) -> torch.Tensor:
    """A copy on the CPU, as a best checkpoint has it; in the memory of an older one that fits."""
    if not isinstance(value, torch.Tensor):
        return as_bytes(value)
    own = dense(value)
    if room is not None and (room.shape, room.dtype, room.device.type) == (own.shape, own.dtype, "cpu"):
        return room.copy_(own)
    return own.to("cpu", copy=True)


def _on_cpu(values: Any) -> Any:
    return values.detach().cpu() if isinstance(values, torch.Tensor) else [one.detach().cpu() for one in values]


def _on(values: Any, device: torch.device) -> Any:
    return values.to(device) if isinstance(values, torch.Tensor) else [one.to(device) for one in values]
