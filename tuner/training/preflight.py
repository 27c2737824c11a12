"""A check of a workload before anything is trained or written: every mistake that one whole update can show.

The price of a study is measured here, too: milliseconds of a step and of an evaluation, bytes of a checkpoint.
"""

import logging
import shutil
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import median

import torch

from tuner.design.trial import Trial
from tuner.design.words import misplaced
from tuner.design.workload import misspelt
from tuner.errors import Infeasible, Paused, WorkloadError
from tuner.records import Price, StepMemory
from tuner.stores.places import StoredPath
from tuner.stores.uploads import spool_folder
from tuner.training.batches import Split
from tuner.training.best import snapshot
from tuner.training.compiled import start_afresh
from tuner.training.data_checks import check_forms, check_repeatable, random_example
from tuner.training.denormals import denormals_as_zero
from tuner.training.endings import first_line, is_out_of_memory
from tuner.training.evaluation import Tally, checked_metrics
from tuner.training.extra_state import load_weights
from tuner.training.finite import check_read
from tuner.training.first_loss import left_as_it_was
from tuner.training.frozen import left_out_bytes
from tuner.training.gang_first_look import look_at_gang
from tuner.training.loading import useful_processes
from tuner.training.models import build_model
from tuner.training.numerics import wait_for
from tuner.training.optimizers import kept_bytes, state_bytes
from tuner.training.precision import computing
from tuner.training.randomness import callers_generators_restored, seed_global_generators
from tuner.training.saving import num_bytes
from tuner.training.setup import TrainingSetup
from tuner.training.slices_look import look_at_slices
from tuner.training.split_metrics import nearest
from tuner.training.step_memory import foreseen_memory, is_too_much, memory_of_update
from tuner.training.trial_run import TrialRun
from tuner.training.whole_update import check_saving, stage, try_update

logger = logging.getLogger(__name__)
TIMED_STEPS = 30
TIMED_BLOCKS = 3
PROBED_STEPS = 10  # of a block, where precisions are compared
FETCHED = 3  # batches
_OPTIMIZERS = "configure_optimizers"
SLOW_CHECK = 5.0  # seconds; a longer look is reported
MUCH_KEPT = 2**28  # bytes that an evaluation keeps of its examples; more is said
SLOW_EVALUATION = 1.0  # seconds; such a one is not repeated


def check_workload(setup: TrainingSetup, trial: Trial, gang: int = 1) -> None:
    """Try one whole update of a throw-away copy, an evaluation, and saving and loading it. Writes nothing.

    gang: how many ranks train a trial together.

    The generators and what the workload holds are left as they were found. Costs four updates, a batch of each split
    evaluated and a checkpoint in memory; a point that the model rejects, or that needs more memory than there is, is
    left to its trial. Raises WorkloadError naming the stage that failed.
    """
    setup, workload = replace(setup, stop=lambda: False), setup.workload
    began = time.perf_counter()
    with callers_generators_restored(setup.device), denormals_as_zero(setup.device), left_as_it_was(workload):
        try:
            with stage(f"{type(workload).__name__}.model", dict(trial.point)):
                run = TrialRun(setup, trial)
            if (memory := _foreseen(run)) is not None and is_too_much(run, memory):
                logger.warning(
                    "the first point needs more memory than there is, so nothing was tried with it: %s",
                    memory.advice(type(setup.workload).__name__),
                )
                return
            try_update(run)
            fresh = build_model(setup, trial)
            if fresh is run.model:
                raise WorkloadError(
                    f"{type(workload).__name__}.model returns the same module at each call, so that a trial would go "
                    "on from the weights of another; make a new one each time"
                )
            with stage("the slices of a batch", run.point):
                look_at_slices(run, fresh)
                look_at_gang(run, fresh, gang)
            _check_metrics(setup, fresh, setup.precision_of(trial))
            check_forms(setup.data.training, run.batches)
            _check_lasts(setup.data.training, run)
            check_repeatable(setup.data.training)
            check_repeatable(setup.data.validation)
            if workload.data_workers:
                setup.data.loading.check()
            check_saving(run)
        except Infeasible as error:
            logger.warning("the model rejects the first point, so nothing was tried with it: %s", error)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            logger.warning("the first point needs more memory than there is: %s", first_line(error))
    took = time.perf_counter() - began
    if took > SLOW_CHECK:
        logger.warning("trying one whole update, an evaluation and a checkpoint took %.0f s", took)


def _foreseen(run: TrialRun) -> StepMemory | None:
    """What an update will take; None where its loss has an error, which the first update reports."""
    with suppress(Exception), left_as_it_was(run.setup.workload):
        return foreseen_memory(run)
    return None


def check_model(setup: TrainingSetup, trial: Trial) -> None:
    """Build the model of a trial, and leave it. Raises WorkloadError; what the point alone rejects is its trial's."""
    workload = setup.workload
    with callers_generators_restored(setup.device), left_as_it_was(workload), suppress(Infeasible):
        try:
            with stage(f"{type(workload).__name__}.model", dict(trial.point)):
                build_model(setup, trial)
        except Exception as error:
            if not is_out_of_memory(error):
                raise


def _check_lasts(training: Split, run: TrialRun) -> None:
    """Raise WorkloadError for a stream that is known to be too short."""
    needed, steps = len(run.rates) * run.batches.batch_size, len(run.rates)
    if training.stream is not None and training.up_to(needed) < needed:
        raise WorkloadError(
            f"the training stream has {training.size:,} examples, and {steps:,} steps of {run.batches.batch_size} take "
            f"{needed:,}: train fewer steps, or let `at` begin again at the end of the data, and give no length"
        )


def _check_metrics(setup: TrainingSetup, model: torch.nn.Module, precision: str) -> None:
    model.eval()
    name = type(setup.workload).__name__
    for split in (setup.data.training, setup.data.validation):
        with stage(f"a batch of the {split.name} split"):
            batch, count = split.some(2)
        with torch.no_grad(), computing(precision, setup.device), stage(f"{name}.metrics"):
            metrics = checked_metrics(setup.workload, model, batch, count)
    apart = setup.workload.not_averaged
    for absent in (one for one in apart if one not in metrics):
        raise WorkloadError(
            f"{name}.not_averaged names {absent!r}, which {name}.metrics does not return{nearest(absent, metrics)}"
        )
    of_split = _tried_split_metrics(setup, model, precision)
    wanted = [setup.study.objective.measured]
    if setup.study.fitted_when is not None:
        wanted.append(setup.study.fitted_when.measured)
    averaged = {one: values for one, values in metrics.items() if one not in apart}
    for metric in wanted:
        if metric.name not in averaged:
            if of_split is not None:
                check_read(setup, metric, averaged, of_split)
            continue
        values = averaged[metric.name]
        if values.is_floating_point() and not torch.isfinite(values).all():
            raise WorkloadError(
                f"{str(metric)!r} is {values.tolist()} for an untrained model; a metric that is not finite can neither "
                "select a checkpoint nor show a fit (D27)"
            )


def _tried_split_metrics(
    setup: TrainingSetup, model: torch.nn.Module, precision: str
) -> dict[str, float | None] | None:
    """What `split_metrics` returns for some validation examples; None where it cannot work with so few.

    Whether each has a value is not asked here: a class may be missing among a few examples (`check_validation`).
    """
    split, workload = setup.data.validation, setup.workload
    name, tally = type(workload).__name__, Tally(workload, split)
    if tally.gathered is None:
        return {}
    batch, few = split.some(setup.evaluation_batch_size)
    with torch.no_grad(), computing(precision, setup.device), stage(f"{name}.metrics"):
        tally.add(checked_metrics(workload, model, batch, few), few)
    kept = tally.gathered.num_bytes / split.size * max(setup.data.training_sample.size, split.size)
    if kept > MUCH_KEPT:
        logger.warning(
            "each evaluation keeps %.1f GB for %s.split_metrics; have metrics() return less for each example: counts, "
            "sums, one score", kept / 1e9, name,
        )  # fmt: skip
    try:
        with stage(f"{name}.split_metrics"):
            return tally.of_split()
    except WorkloadError as error:
        if error.__cause__ is None or few == split.size:  # an error of ours, or on the whole split
            raise
        return None


def warn_of_ignored(setup: TrainingSetup, trial: Trial) -> None:
    """Say what is declared and not used: misspelt hooks, words of other tools, and a model's own optimizers."""
    owner = type(setup.workload).__name__
    for name, written in misplaced(setup.workload).items():
        logger.warning("nothing reads %s.%s; write %s. Rename it if it is your own", owner, name, written)
    for name, meant in misspelt(setup.workload).items():
        logger.warning("nothing reads %s.%s; did you mean %s? Rename it if it is your own", owner, name, meant)
    with callers_generators_restored(setup.device):
        model = build_model(setup, trial)
    if any(callable(getattr(module, _OPTIMIZERS, None)) for module in model.modules()):
        logger.warning(
            "%s.model has %s, which is not called: each trial is trained by %s, with the learning rate, weight decay "
            "and schedule of its point; declare schedule= and optimizer= in the Campaign: a name, a class like "
            "torch.optim.RMSprop, or a function of (groups, point) that returns what %s made",
            type(setup.workload).__name__, _OPTIMIZERS, setup.optimizer_of(trial), _OPTIMIZERS,
        )  # fmt: skip


def check_switched_off(setup: TrainingSetup, trial: Trial) -> None:
    """Raise WorkloadError when the training loss of one batch depends on random numbers (A22, A23, D2).

    At their off values neither dropout nor augmentation nor noise may be left: two losses of the same weights and
    the same examples, drawn with different seeds, must be the same bits. Neither may a dataset draw random numbers.
    """
    name = type(setup.workload).__name__
    drawn = random_example(setup.data.training)
    if drawn is not None:
        raise WorkloadError(
            f"the training split of {name} draws random numbers: its example {drawn} is another one in each epoch, and "
            "a sweep trains without augmentation (A22), because it asks for the steps that fit the training set; move "
            "what is random from the dataset into augment(), which a sweep leaves out"
        )
    with callers_generators_restored(setup.device):
        run = TrialRun(setup, trial)
        left = [kind for kind, module in run.model.named_modules() if getattr(module, "p", 0) and _is_dropout(module)]
        if left:
            raise WorkloadError(
                f"{name}.model keeps dropout on ({', '.join(left[:3])}) with every regularizer at its off value; a "
                "sweep trains without (A23): let the model read its rate from the point"
            )
        as_built = snapshot(run.model)
        losses = []
        for seed in (1, 2):
            load_weights(run.model, as_built, setup.device)
            run.model.train()
            seed_global_generators(seed, setup.device)
            with computing(run.rule.precision, setup.device):
                losses.append(float(setup.workload.loss(run.model, run.batches.fetched(0), run.point).detach()))
    if losses[0] != losses[1]:
        raise WorkloadError(
            f"{name} trains with randomness that its off values do not switch off: the loss of one batch is "
            f"{losses[0]:.9g} with one seed and {losses[1]:.9g} with another; a sweep trains without augmentation and "
            "regularization (A22, A23): give the hyperparameter behind it an off value, or put it into augment()"
        )


def _is_dropout(module: torch.nn.Module) -> bool:
    return "Dropout" in type(module).__name__


def measured_price(setup: TrainingSetup, trial: Trial) -> Price:
    """Train a throw-away copy of a trial for a moment, time it and see what memory it takes. Nothing is written.

    Raises WorkloadError where it takes more memory than there is.
    """
    setup, loading = replace(setup, stop=lambda: False), setup.data.loading
    with callers_generators_restored(setup.device), setup.loading():
        run = TrialRun(setup, trial)
        if (memory := _foreseen(run)) is not None and is_too_much(run, memory):
            raise WorkloadError(
                f"there is no price for what cannot be trained here: {memory.advice(type(setup.workload).__name__)}"
            )
        fetch = _fetch_seconds(run)
        steps = min(TIMED_STEPS, len(trial.schedule) // (TIMED_BLOCKS + 1))
        if run.compiler:
            start_afresh()
        first = _timed(lambda: run.advance(run.step + 1), setup)
        run.advance(run.step + max(0, steps - 1))
        if steps:
            blocks = [_timed(lambda: run.advance(run.step + steps), setup) / steps for _ in range(TIMED_BLOCKS)]
        else:
            blocks = [_timed(lambda: run.advance(min(len(trial.schedule), run.step + 1)), setup)]
        memory = memory_of_update(run)
        first += _timed(run.evaluate, setup) if run.compiler else 0.0
        evaluation, processes, frozen = timed_evaluation(run), loading.count, left_out_bytes(run.frozen())
        latest = sum(t.numel() * t.element_size() for t in _tensors(run.state())) - frozen
        best = sum(t.numel() * t.element_size() for t in snapshot(run.model).values()) - frozen
    step = median(blocks)
    rest = max(0.0, step - fetch) if not processes else step
    useful = useful_processes(fetch, rest, setup.most_loading)
    return Price(
        1e3 * step, 1e3 * evaluation, latest, best, 1e3 * fetch, processes, useful, setup.trainers,
        memory=memory,
        compile_ms=max(0.0, 1e3 * (first - step - evaluation)) if run.compiler else 0.0,
    )  # fmt: skip


def precision_speeds(setup: TrainingSetup, trials: Sequence[Trial]) -> tuple[tuple[str, float], ...]:
    """The precisions of some trials but float32, each with its speed: a multiple of that of the same trial in float32.

    Trains a throw-away copy of the first trial of each, and one in float32, for a moment. Writes nothing.
    """
    first: dict[str, Trial] = {}
    for trial in trials:
        first.setdefault(setup.precision_of(trial), trial)
    found = []
    for name, trial in first.items():
        if name in ("", "float32"):
            continue
        plain = replace(setup, study=replace(setup.study, precision="float32"))
        named = "precision" in trial.point
        twin = replace(trial, point=trial.point.with_values(precision="float32")) if named else trial
        with suppress(torch.OutOfMemoryError):  # of the copy in float32, say: the trial itself may fit
            found.append((name, _step_seconds(plain, twin) / _step_seconds(setup, trial)))
    return tuple(found)


def _step_seconds(setup: TrainingSetup, trial: Trial) -> float:
    """Seconds of a step of a throw-away copy; the first block, which warms up, is left out."""
    setup = replace(setup, stop=lambda: False)
    steps = min(PROBED_STEPS, len(trial.schedule) // (TIMED_BLOCKS + 1))
    with callers_generators_restored(setup.device), setup.loading():
        run = TrialRun(setup, trial)
        run.advance(max(1, steps))
        if not steps:  # one update, or two
            return _timed(lambda: run.advance(min(len(trial.schedule), run.step + 1)), setup)
        return median(_timed(lambda: run.advance(run.step + steps), setup) / steps for _ in range(TIMED_BLOCKS))


def _fetch_seconds(run: TrialRun) -> float:
    """To fetch and collate a batch in this process; 0 where it is cut out of tensors in memory."""
    if run.batches.uniform:
        return 0.0

    def fetch(step: int) -> None:
        for part in range(run.batches.slices):
            run.batches.fetched(step, part)

    return median(_timed(partial(fetch, step), run.setup) for step in range(FETCHED))


def timed_evaluation(run: TrialRun) -> float:
    """Seconds of an evaluation of a trial for itself."""
    seconds = _timed(run.evaluate, run.setup)
    return _timed(run.evaluate, run.setup) if seconds < SLOW_EVALUATION else seconds  # the first one also warms up


def _timed(work: Callable[[], object], setup: TrainingSetup) -> float:
    wait_for(setup.device)
    started = time.perf_counter()
    work()
    wait_for(setup.device)
    return time.perf_counter() - started


def _tensors(value: object) -> list[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, dict):
        return [tensor for item in value.values() for tensor in _tensors(item)]
    if isinstance(value, list | tuple):
        return [tensor for item in value for tensor in _tensors(item)]
    return []


CHECKPOINTS = 3  # the newest, the one before it, and the one that is being written


def check_room(setup: TrainingSetup, trial: Trial, at_once: int = 1) -> None:
    """Raise Paused when the folder of the checkpoints has no room for three of each trial that trains at once.

    Writes nothing. A group writes those of all its trials as one file.
    """
    with callers_generators_restored(setup.device):
        run = TrialRun(setup, trial)
        size, frozen = checkpoint_bytes(run), left_out_bytes(run.frozen())
    refuse_full_disk(setup.checkpoint_root, size, at_once, frozen)


def refuse_full_disk(checkpoint_root: StoredPath, size: int, at_once: int, frozen: int = 0) -> None:
    """Raise Paused where a folder has no room for three checkpoints of `size` bytes for each of some trials.

    `frozen`: bytes that are written once, for all of them. An object store has room; the disk on the way to it holds
    one file at a time.
    """
    if not isinstance(checkpoint_root, Path):
        _refuse_full_spool(max(size, frozen))
        return
    there = _existing(checkpoint_root)
    free = shutil.disk_usage(there).free
    if free < CHECKPOINTS * at_once * size + frozen:
        whose = "a trial of this model is trained" if at_once == 1 else f"{at_once} such trials are trained at once"
        each = "each" if at_once == 1 else "for each of them"
        raise Paused(
            f"{there} has {free / 1e6:,.3f} MB free, and {CHECKPOINTS} checkpoints of {size / 1e6:,.3f} MB {each} must "
            f"fit before {whose}; make room there or name another disk with --checkpoints, then run the same command "
            "again to continue"
        )


def _refuse_full_spool(size: int) -> None:
    spool = spool_folder()
    free = shutil.disk_usage(spool).free
    if free < size:
        raise Paused(
            f"{spool} has {free / 1e6:,.3f} MB free, and a checkpoint of {size / 1e6:,.3f} MB must fit there "
            "on its way to the object store; make room or set TMPDIR to a folder on another disk, then run the same "
            "command again to continue"
        )


def checkpoint_bytes(run: TrialRun) -> int:
    """The tensors of a trial's checkpoint, as it is once the optimizer has made a step, and of its best weights."""
    kept = state_bytes(run.optimizer) - kept_bytes(run.optimizer)
    return num_bytes(run.state()) + kept + num_bytes(snapshot(run.model)) - 2 * left_out_bytes(run.frozen())


def _existing(folder: Path) -> Path:
    """The folder, or the nearest one above it that is there already."""
    return next(path for path in (folder, *folder.resolve().parents) if path.exists())
