"""One trial while it trains: model, optimizer, and everything a checkpoint has to hold."""

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial
from typing import Any, Self

import torch

from tuner.design.objective import (
    BATCH_LOSS,
    CLIPPED_SHARE,
    GRADIENT_NORM,
    LARGEST_GRADIENT_NORM,
    SKIPPED_UPDATES,
    STEP_LOSS,
    STEP_NORM,
)
from tuner.design.optimizers import ParameterGroup
from tuner.design.prefix import base_digest, path_digests, rates_of
from tuner.design.trial import Trial
from tuner.errors import StudyChanged
from tuner.records import Checkpoint, Measurement, Numerics, PrefixKey
from tuner.training.averages import averages_of, shown_weights
from tuner.training.batches import TrainingBatches
from tuner.training.best import snapshot
from tuner.training.compiled import compiler_of, repeats, with_compiler
from tuner.training.engine import Measured, Weights
from tuner.training.evaluation import Tally, tallied
from tuner.training.extra_state import extra_state_of, frozen_in, set_extra_state, set_tensors, tensors_of
from tuner.training.first_loss import OUTSIDE, first_loss
from tuner.training.fsdp_state import whole_state_of
from tuner.training.gang import Gang
from tuner.training.groups import TrainedGroup, as_state, difference_of_groups, recorded, trained_groups
from tuner.training.host_generators import HOST
from tuner.training.loss_scale import LossScale, unchanged_by_half
from tuner.training.models import build_model, initial_weights, shown_point
from tuner.training.numerics import is_repeatable
from tuner.training.optimizers import make_optimizer
from tuner.training.precision import computing, updating
from tuner.training.randomness import seed_global_generators, seed_torch_generators
from tuner.training.setup import TrainingSetup
from tuner.training.slices import Slices, check_totals, weigher
from tuner.training.spoiled import what_spoiled
from tuner.training.stability import Divergence, clipped_share, diverged_loss, diverged_weights, total_norm
from tuner.training.step_memory import out_of_memory_words
from tuner.training.update import Draws, Update, UpdateRule


class TrialRun:
    """A trial at some step. `losses` are those of the training batches since the last evaluation, on the device.

    `norms` are the L2 norms of their gradients before clipping; none where the point has no clip_norm, unless the
    study is traced.
    `base` stands for all that decides its bits but the schedule; "" where that is not known (see `design.prefix`).
    `draws`: whether a step before this one drew from Python's or NumPy's global generator. They are seeded for each
    step from then on, and at rest until then: to seed them costs more than a small step can spare. A checkpoint keeps
    it, so that a step draws the same wherever a trial was resumed.
    `scale`: that of the loss in fp16; None in other precisions.
    `averages`: those of the weights, where they are evaluated in place of the weights; else None.
    `groups`: what is recorded of its parameter groups; none where all parameters are trained alike.
    `compiler`: of what the study gives to `torch.compile`; "" where it compiles nothing.
    `initial` is a digest of the weights it starts from, `first_loss` of the loss of its first batch (before it is
    augmented), once `note_initial` was called.
    `gang`: the ranks that train it together; None where this process does so alone.
    """

    gang: Gang | None = None
    kind_of_update: Callable[..., Update] = Update

    def __init__(self, setup: TrainingSetup, trial: Trial) -> None:
        self.setup = setup
        self.trial = trial
        self.point: Mapping[str, Any] = shown_point(trial.point)
        rates = rates_of(trial)
        rates = _as_kernels_read_them(rates) if setup.device.type == "cuda" else tuple(rates)
        # A limit that no norm reaches multiplies gradients by 1, which changes no bit: so their norms are there.
        unclipped = math.inf if setup.study.traced_every else None
        self.rule = UpdateRule(
            trial.seed,
            rates,
            self.point.get("clip_norm", unclipped),
            slices=setup.slices_of(trial),
            precision=setup.precision_of(trial),
        )
        self.model = self.built()
        self.compiler = compiler_of(self.model, setup.workload.loss, setup.device)
        self.parameters = self.trained()
        groups = trained_groups(setup.workload, self.model, self.point)
        self.groups = recorded(groups)
        given = [self.for_optimizer(group) for group in groups]
        self.optimizer = make_optimizer(setup.optimizer_of(trial), given, self.point, self.rates[0], self.model)
        self.averages = averages_of(setup.ema_steps_of(trial), self.model)
        slices, training = self.rule.slices, setup.data.training
        self.batches = TrainingBatches(training, setup.batch_size_of(trial), trial.data_seed, slices)
        self.weigh = weigher(setup.workload, training, self.batches.slice_size) if slices > 1 else None
        self.scale = LossScale() if self.rule.precision == "fp16" else None
        self.step = 0
        self.initial = ""
        self.first_loss = ""
        self.losses: list[torch.Tensor] = []
        self.norms: list[torch.Tensor] = []
        self._checked = 0  # losses that are known to be finite
        self._traced: list[Measurement] = []
        self.gradient_norm = 0.0
        self.draws = slices > 1  # slices are seeded always, so that each has its own numbers from the first step on
        self._augmentation_draws = slices > 1  # it is called again where that is seen, so nothing depends on it
        self.totals: dict[int, torch.Tensor] = {}  # of the slices' weights, by step, on the device
        self.exact = setup.profile == "exact" and repeats(self.compiler)
        self.base = base_digest(setup.study, trial, setup.fingerprint) if setup.fingerprint else ""

    def built(self) -> torch.nn.Module:
        """The model of the trial before its first step."""
        return build_model(self.setup, self.trial)

    def trained(self) -> list[torch.nn.Parameter]:
        """The parameters that its updates change."""
        return [parameter for parameter in self.model.parameters() if parameter.requires_grad]

    def for_optimizer(self, group: TrainedGroup) -> ParameterGroup:
        """A group of its parameters as the optimizer is built of it."""
        return group.for_optimizer()

    @property
    def rates(self) -> tuple[float, ...]:
        """The learning rate of each step."""
        return self.rule.rates

    @property
    def numerics(self) -> Numerics:
        """The Numerics of this trial; marked where it was not trained under one alone."""
        return replace(self._numerics, exact=self.exact)

    @property
    def _numerics(self) -> Numerics:
        """Those that it is trained under now."""
        return with_compiler(self.setup.numerics, self.compiler)

    def note_initial(self) -> None:
        """Digest weights and loss as they are before the first step: a saved state is compared with those of its own.

        Costs a copy of the model and the loss of one batch. Call it on a fresh run.
        """
        self.initial = initial_weights(self.model)
        self.first_loss = self._loss_at_first()

    def _loss_at_first(self) -> str:
        try:
            batch = self.batches.fetched(0)
        except Exception:  # the first step reports it
            return ""
        seed = self.rule.draw_seed(Draws.LOSS, 0)
        with computing(self.rule.precision, self.setup.device):
            return first_loss(self.setup.workload, self.model, batch, self.point, seed, self.setup.device)

    def advance(self, until: int, pause: Callable[[], bool] = lambda: False) -> bool:
        """Train up to step `until`, or to where `pause()` is true, or `stop()` of the setup (then returns True).

        No value is read back from the device, unless losses are scaled (fp16). Between an update that was skipped and
        its repetition it may stop, too.
        """
        with updating(self.rule.precision, self.setup.device):
            update = self.kind_of_update(self.setup, self.rule, self.model, self.parameters, self.optimizer, self.scale)
            update.totals = self.totals
            update.share_with(self.gang)
            batch_at, point, stop, step = self.batch_at, self.point, self.stops, self.step
            self.model.train()
            while step < until:
                if pause():
                    break
                if stop():
                    return True
                made = update.make(batch_at(step), point, step, host_draws=self.draws)
                if made is None:
                    self.batches.rewind()
                    continue
                loss, norm = made
                self.draws = self.draws or HOST.touched
                self.losses.append(loss)
                if norm is not None:
                    self.norms.append(norm)
                self.moved()
                step = self.step
        return False

    def stops(self) -> bool:
        """Whether to leave before the next update, because the setup says stop."""
        return self.setup.stop()

    def moved(self) -> None:
        """Another update was made."""
        self.step += 1
        if self.averages is not None:
            self.averages.take(self.step)

    def batch_at(self, step: int) -> Any:
        """The batch of an update, augmented where the study says so, or its `Slices`."""
        count = self.rule.slices
        if count == 1:
            return self.slice_at(step)
        mine = None if self.gang is None else self.gang.share(count)
        return Slices(count, partial(self.slice_at, step), self.together, self.weigh, mine)

    @property
    def together(self) -> int:
        """How many slices are made at a time: as many as are in a micro-batch."""
        most = self.setup.workload.micro_batch_size or self.batches.batch_size
        return max(1, most // self.batches.slice_size)

    def slice_at(self, step: int, part: int = 0) -> Any:
        """Slice `part` of an update's batch, augmented where the study says so. A function of (seeds, step) alone."""
        if not (self.setup.study.augment and self.setup.workload.augments):
            return self.batches.at(step, part)
        batch = self._augmented(step, part) if not self._augmentation_draws else None
        if self._augmentation_draws or HOST.touched:
            self._augmentation_draws = True
            batch = self._augmented(step, part)
        return batch

    def _augmented(self, step: int, part: int) -> Any:
        batch, device, rule = self.batches.at(step, part), self.setup.device, self.rule
        if self._augmentation_draws:
            HOST.seed(rule.draw_seed(Draws.AUGMENTATION_HOST, step, part))
        else:
            HOST.rest()
        seed_torch_generators(rule.draw_seed(Draws.AUGMENTATION_TORCH, step, part), device)
        generator = torch.Generator(device).manual_seed(rule.draw_seed(Draws.AUGMENTATION, step, part))
        return self.setup.workload.augment(batch, self.point, generator)

    def read_gradient_norm(self) -> float:
        """The L2 norm of the last gradient before clipping; kept when there is none, just after a resume."""
        if self.rule.clip_norm is None:
            self.gradient_norm = self._norm_as_taken()
        elif self.norms:
            self.gradient_norm = float(self.norms[-1])
        return self.gradient_norm

    def _norm_as_taken(self) -> float:
        """The L2 norm of the gradient as the optimizer took it, which is after clipping; kept when there is none."""
        gradients = [p.grad for p in self.parameters if p.grad is not None]
        return float(total_norm(gradients)) if gradients else self.gradient_norm

    def evaluate(self) -> dict[str, float]:
        """Metrics of the training split (in eval mode, without penalty terms) and of the validation split.

        Raises Interrupted where the setup says stop.
        """
        return self.evaluated()[0]

    def evaluated(self, stop: Callable[[], bool] | None = None) -> tuple[Measured, list[Tally]]:
        """The metrics as `evaluate` gives them, and what was kept of the examples of each split.

        stop: asked before each batch, in place of what the setup says.
        """
        setup, stop = self.setup, stop or self.setup.stop
        self.seed_evaluation()
        measured: Measured = {}
        tallies = []
        with self.shown(), unchanged_by_half(self.model):
            for split in (setup.data.training_sample, setup.data.validation):
                size = setup.evaluation_batch_size
                with computing(self.rule.precision, setup.device):
                    tallies.append(tallied(setup.workload, self.model, split, batch_size=size, stop=stop))
                measured |= tallies[-1].measured()
        return measured, tallies

    def shown(self) -> AbstractContextManager[None]:
        """Within the block the model has the weights that are evaluated, kept and exported.

        Outside of it those that are trained; both are the same where nothing is averaged.
        """
        return shown_weights(self.averages, self.optimizer)

    def seed_evaluation(self) -> None:
        """Seed the generators that metrics may draw from, by the step."""
        seed_global_generators(self.rule.draw_seed(Draws.EVALUATION, self.step), self.setup.device)

    @property
    def unevaluated(self) -> int:
        """Updates made since the last evaluation."""
        return len(self.losses)

    def divergence(self) -> Divergence | None:
        """Read back the losses that were not read yet; what is not finite among them, or in gradient and weights.

        Raises WorkloadError where the slices of a batch had no weight.
        """
        totals = dict(self.totals)
        self.totals.clear()
        check_totals(list(totals.values()), list(totals))
        new = self.losses[self._checked :]
        if not new:
            return None
        values = torch.stack(new).tolist()
        self._checked = len(self.losses)
        divergence = diverged_loss(values, self.step - len(new))
        norm = self.read_gradient_norm()
        if self.rule.clip_norm is not None:
            norm = self._norm_as_taken()  # an update whose norm overflows is clipped to zero and breaks no weight
        divergence = divergence or diverged_weights(norm, self.watched(), self.step)
        given_up = self.scale.divergence() if self.scale is not None else None
        if given_up is not None and (divergence is None or given_up.step <= divergence.step):
            divergence = given_up
        if divergence is None:
            return None
        self._trace(torch.stack(self.losses).tolist(), divergence.step)
        return replace(divergence, what=divergence.what + what_spoiled(self.batches, divergence.step))

    def watched(self) -> Sequence[torch.Tensor]:
        """Tensors with the norm of the weights: what is not finite there has diverged."""
        return self.parameters

    def measure(self, evaluated: Measured | None = None) -> Measured:
        """The metrics of both splits, and mean loss and gradient norms of the batches since the last evaluation.

        `evaluated`: the metrics of the splits, where they are known. Raises Interrupted, with nothing changed, where
        the setup says stop.
        """
        measured = self.evaluate() if evaluated is None else evaluated
        batch_losses = torch.stack(self.losses).tolist()
        measured[str(BATCH_LOSS)] = math.fsum(batch_losses) / len(batch_losses)
        measured |= self._measured_norms()
        if self.scale is not None:
            measured[str(SKIPPED_UPDATES)] = float(self.scale.skipped_since)
            self.scale.skipped_since = 0
        self._trace(batch_losses, self.step)
        self.losses, self.norms, self._checked = [], [], 0
        return measured

    def traced(self) -> list[Measurement]:
        """Losses and norms of single updates, as far as their study traces them, since the last call."""
        found, self._traced = self._traced, []
        return found

    def _trace(self, losses: Sequence[float], until: int) -> None:
        """Note the updates since the last evaluation, up to number `until`, counted from 1."""
        every = self.setup.study.traced_every
        if not every:
            return
        first = self.step - len(losses) + 1
        norms = torch.stack(self.norms).tolist() if len(self.norms) == len(losses) else [math.nan] * len(losses)
        for step, loss, norm in zip(range(first, until + 1), losses, norms, strict=False):
            if step % every == 0 or step == 1:
                self._traced += [Measurement(step, str(STEP_LOSS), loss), Measurement(step, str(STEP_NORM), norm)]

    def _measured_norms(self) -> dict[str, float]:
        found, limit = {str(GRADIENT_NORM): self.gradient_norm}, self.rule.clip_norm
        whole = len(self.norms) == len(self.losses)  # an older version saved losses without norms
        if limit is None or math.isinf(limit) or not whole:
            return found
        norms = torch.stack(self.norms).tolist()
        return found | {str(LARGEST_GRADIENT_NORM): max(norms), str(CLIPPED_SHARE): clipped_share(norms, limit)}

    def weights(self, into: Weights | None = None) -> Weights:
        """A copy of the state dict of the evaluated model, in the memory of an older copy where that fits."""
        with self.shown():
            return snapshot(self.model, into)

    def frozen(self) -> Weights:
        """The parameters without gradients, as they are: no copies."""
        return frozen_in(self.model)

    def prefix_key(self) -> PrefixKey | None:
        """What the present state is a function of; None where that is not known."""
        if not self.base:
            return None
        path = path_digests(rates_of(self.trial), self.setup.study.budget, [self.step])[self.step]
        return PrefixKey(self.base, path, self.numerics)

    def out_of_memory(self) -> str:
        """What an update needs, how much memory is free, and what to write; nothing else may be done with it after."""
        return out_of_memory_words(self)

    def fresh(self) -> Self:
        """The same trial at its first step; it begins as this one did."""
        run = type(self)(self.setup, self.trial)
        run.initial, run.first_loss = self.initial, self.first_loss
        return run

    def state(self) -> dict[str, Any]:
        """Everything the rest of the trial depends on: plain containers and tensors only."""
        return {
            "step": self.step,
            "model": tensors_of(self.model),
            "optimizer": self.optimizer.state_dict(),
            "losses": _stacked(self.losses),
            "gradient_norm": self.gradient_norm,
            "numerics": self._numerics.text,
            "draws": self.draws,
            "exact": self.exact,
            "base": self.base,
            "initial": self.initial,
            "first_loss": self.first_loss,
            **({} if self.rule.clip_norm is None else {"norms": _stacked(self.norms)}),
            **({"groups": as_state(self.groups)} if self.groups else {}),
            **({"scale": self.scale.state()} if self.scale is not None else {}),
            **({} if self.averages is None else {"averages": self.averages.state()}),
            **({"extra": extra} if (extra := extra_state_of(self.model)) else {}),
        }

    def write_shards(self, place: str, fence: int) -> Sequence[Checkpoint]:
        """Nothing: the state is whole."""
        return ()

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on from a saved state, whole or in shards.

        Raises StudyChanged for the state of a trial that started from other weights, or with another loss, and where
        its parameters were grouped otherwise.
        """
        state = whole_state_of(self.setup.checkpoint_root, state)
        self._check_initial(state)
        self._check_groups(state)
        self.put_model(state["model"])
        has_extra = set_extra_state(self.model, state.get("extra", {}), self.setup.device)
        whole = self.averages is None or self.averages.load(state.get("averages"))
        self.optimizer.load_state_dict(state["optimizer"])
        if self.scale is not None:
            self.scale.load(state["scale"])
        self.step = int(state["step"])
        self.losses = list(state["losses"].to(self.setup.device))
        self.norms = list(state["norms"].to(self.setup.device)) if "norms" in state else []
        self.gradient_norm = float(state["gradient_norm"])
        self.draws = bool(state.get("draws", False))
        self._checked = len(self.losses)
        self.totals = {}
        alike = self._is_of_here(state) and is_repeatable(self.setup.device)
        same = state.get("base") == self.base
        self.exact = bool(state["exact"]) and alike and same and has_extra and whole  # tuner 0.1 saved no extra state
        if not same:
            self.base = ""  # of other code, or of an older version: what led here is not what is declared

    def put_model(self, saved: Mapping[str, torch.Tensor]) -> None:
        """Give the model its saved tensors. Raises LookupError or ValueError where they do not fit."""
        set_tensors(self.model, saved, self.setup.device)

    def _is_of_here(self, state: Mapping[str, Any]) -> bool:
        """Whether a state was trained under the Numerics of this process."""
        return Numerics.from_text(str(state["numerics"])).agrees_with(self._numerics)

    def _check_initial(self, state: Mapping[str, Any]) -> None:
        if not self._is_of_here(state) or state.get("base") != self.base:
            return
        before = state.get("initial")
        if before and self.initial and before != self.initial:
            raise StudyChanged(
                f"trial {self.trial.number} of {self.setup.study.name} was begun from other initial weights than "
                f"{type(self.setup.workload).__name__}.model(point) gives it now, so it cannot go on to what it "
                "would have become: put back what the model loads (a file was overwritten?), draw its initialization "
                "from global generators only, or train the study again under another campaign name"
            )
        before = state.get("first_loss")
        if before and self.first_loss and before != self.first_loss == self._loss_at_first():
            raise StudyChanged(
                f"trial {self.trial.number} of {self.setup.study.name} was begun with another loss of its first "
                f"batch than {type(self.setup.workload).__name__}.loss gives now, from the same weights, so it "
                f"cannot go on to what it would have become: put back what the loss reads ({OUTSIDE}), or train the "
                "study again under another campaign name"
            )

    def _check_groups(self, state: Mapping[str, Any]) -> None:
        """An optimizer's state names its parameters by their order, and carries the multiples of their groups."""
        told = difference_of_groups(state.get("groups", []), as_state(self.groups))
        if not told:
            return
        if state.get("base") != self.base:  # of other code, which may group otherwise
            raise ValueError(f"its parameters are grouped otherwise now: {told}")
        raise StudyChanged(
            f"trial {self.trial.number} of {self.setup.study.name} was begun with other parameter groups than "
            f"{type(self.setup.workload).__name__}.parameter_groups gives it now ({told}), so it cannot go on to what "
            "it would have become: put back what the method reads, or train the study again under another campaign name"
        )


def _stacked(values: list[torch.Tensor]) -> torch.Tensor:
    return torch.stack(values) if values else torch.empty(0)


def _as_kernels_read_them(rates: Sequence[float]) -> tuple[float, ...]:
    """Learning rates in float32: a graph of CUDA kernels reads them from the device, where they are no float64."""
    return tuple(torch.tensor(rates, dtype=torch.float32).tolist())
