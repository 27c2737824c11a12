"""One trial of each study of studies/examples through tuner, against a plain torch loop of the same work, in turn.

    OMP_NUM_THREADS=1 python benchmarks/real_scripts.py [--only NAME,...] [--rounds 5]

Tuner's side is what `tuner launch` does with a trial: supervisor, engine, evaluations, checkpoints on the disk, records
in a database. The plain side is what a person writes: a DataLoader with the same loading processes (tensors in memory
are indexed), torch's optimizer with its fused kernel, LambdaLR with the same rates, the same evaluations at the same
steps; nothing is saved. Both train the same model at the same point for the same steps, on data that are there already.

The ratio is that of steps a second, tuner's over the plain loop's: the median over rounds, in each of which both are
trained one after the other. Time is CPU time of this process; by the clock where there are loading processes.
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader, IterableDataset, Subset, default_collate

from tuner.design.points import Point
from tuner.design.study_file import load_campaign
from tuner.design.workload import Workload
from tuner.rounds.plan import study_of_round, trial_at
from tuner.storage.store import open_ledger
from tuner.training.alone import Alone
from tuner.training.setup import Data, TrainingSetup
from tuner.training.supervisor import Supervisor

EXAMPLES = Path(__file__).parents[1] / "studies" / "examples"
GOAL = 0.97
optim = torch.optim


@dataclass(frozen=True)
class Script:
    """How a person would train one trial of a study.

    point: hyperparameters. steps: of one training; two seconds or so. optimizer: of the groups of the model's
    parameters. clip: the largest norm of a gradient.
    """

    point: dict[str, Any]
    steps: int
    optimizer: Callable[[Any], torch.optim.Optimizer]
    groups: Callable[[torch.nn.Module], Any] = lambda model: model.parameters()
    clip: float | None = None


def matrices_decay(model):
    """Two groups, as GPTs are trained: weight decay for matrices alone."""
    parameters = list(model.parameters())
    return [
        {"params": [each for each in parameters if each.dim() >= 2]},
        {"params": [each for each in parameters if each.dim() < 2], "weight_decay": 0.0},
    ]


SCRIPTS = {
    "crops": Script(
        {"learning_rate": 0.05, "weight_decay": 5e-4, "momentum": 0.9}, 200,
        partial(optim.SGD, lr=0.05, momentum=0.9, weight_decay=5e-4, fused=True),
    ),
    "gpt": Script(
        {"learning_rate": 3e-3, "weight_decay": 0.1, "clip_norm": 1.0, "dropout": 0.0}, 200,
        partial(optim.AdamW, lr=3e-3, weight_decay=0.1, fused=True), matrices_decay, clip=1.0,
    ),
    "pairs": Script(
        {"learning_rate": 0.01, "weight_decay": 0.01, "width": 48, "dropout": 0.1}, 1000,
        partial(optim.AdamW, lr=0.01, weight_decay=0.01, fused=True),
    ),
    "lightning_module": Script(
        {"learning_rate": 0.01, "dropout": 0.1}, 3000, partial(optim.Adam, lr=0.01, fused=True),
    ),
    "unet": Script({"learning_rate": 2e-3, "criterion": "with dice"}, 200, partial(optim.RMSprop, lr=2e-3)),
    "forecast": Script(
        {"learning_rate": 3e-3, "weight_decay": 0.01, "network": "hidden layer"}, 4000,
        partial(optim.AdamW, lr=3e-3, weight_decay=0.01, fused=True),
    ),
    "vae": Script({"learning_rate": 3e-3, "code": 8}, 3000, partial(optim.Adam, lr=3e-3, fused=True)),
    "graphs": Script({"learning_rate": 0.01, "rounds": 3}, 800, partial(optim.NAdam, lr=0.01)),
    "graphs_geometric": Script(
        {"learning_rate": 0.01, "rounds": 3}, 600, partial(optim.NAdam, lr=0.01),
    ),
    "speech": Script(
        {"learning_rate": 0.03, "weight_decay": 1e-5}, 300, partial(optim.RAdam, lr=0.03, weight_decay=1e-5),
    ),
    "recommend": Script({"learning_rate": 0.1, "dimensions": 16}, 3000, partial(optim.Adagrad, lr=0.1)),
    "stream": Script(
        {"learning_rate": 5e-3, "weight_decay": 0.01}, 300,
        partial(optim.AdamW, lr=5e-3, weight_decay=0.01, fused=True),
    ),
}  # fmt: skip


class Numbered(IterableDataset):
    """A stream as torch's DataLoader takes it, or its first `count` examples."""

    def __init__(self, at, count=None):
        self.at, self.count = at, count

    def __iter__(self):
        return islice(self.at(0), self.count)


class ByLength:
    """Batches of examples of about one length: shuffled, cut into pieces of 50 batches, each sorted by length."""

    def __init__(self, lengths, size):
        self.lengths, self.size = lengths, size

    def __iter__(self):
        order = torch.randperm(len(self.lengths)).tolist()
        pieces = [order[start : start + 50 * self.size] for start in range(0, len(order), 50 * self.size)]
        batches = []
        for piece in pieces:
            ordered = sorted(piece, key=lambda index: self.lengths[index])
            batches += [ordered[start : start + self.size] for start in range(0, len(piece), self.size)]
        batches = [batch for batch in batches if len(batch) == self.size]
        yield from (batches[place] for place in torch.randperm(len(batches)).tolist())

    def __len__(self):
        return len(self.lengths) // self.size


class PlainLoop:
    """The loop of a person who knows torch well."""

    def __init__(self, script: Script, workload: Any, splits: Any, rates: Sequence[float], evaluation_steps: set[int]):
        self.script, self.workload, self.rates = script, workload, rates
        self.evaluation_steps = evaluation_steps
        self.training, self.validation = splits.training, splits.validation
        self.sample = self.training_sample()

    def training_sample(self):
        count = self.workload.training_evaluation_examples
        if hasattr(self.training, "at"):
            return Numbered(self.training.at, count)
        whole = len(self.training[0]) if isinstance(self.training, tuple) else len(self.training)
        if count is None or count >= whole:
            return self.training
        drawn = torch.randperm(whole, generator=torch.Generator().manual_seed(0))[:count].sort().values
        if isinstance(self.training, torch.utils.data.Dataset):
            return Subset(self.training, drawn.tolist())
        return tuple(each[drawn] for each in as_tuple(self.training))

    def loader(self, split, size, *, shuffle=False):
        """Batches of one pass over a split, for ever new ones where they are shuffled."""
        workload = self.workload
        if isinstance(split, tuple | torch.Tensor):
            return InMemory(as_tuple(split), size, shuffle)
        collate = workload.collate if workload.declares("collate") else default_collate
        workers = workload.data_workers if workload.data_workers != "auto" else 2
        options = {"collate_fn": collate, "num_workers": workers, "persistent_workers": bool(workers)}
        if hasattr(split, "at"):
            split = split if isinstance(split, Numbered) else Numbered(split.at)
            return DataLoader(split, batch_size=size, **options)
        if shuffle and workload.declares("lengths"):
            return DataLoader(split, batch_sampler=ByLength(list(workload.lengths()), size), **options)
        return DataLoader(split, batch_size=size, shuffle=shuffle, drop_last=shuffle, **options)

    def train(self):
        """One whole training, its loading processes included; returns the last metrics of the validation split."""
        script, workload, point = self.script, self.workload, self.script.point
        size = max(workload.evaluation_batch_size, workload.batch_size)
        train_loader = self.loader(self.training, workload.batch_size, shuffle=True)
        sample_loader, validation_loader = self.loader(self.sample, size), self.loader(self.validation, size)
        torch.manual_seed(0)
        model = workload.model(point)
        parameters = list(model.parameters())
        optimizer = script.optimizer(script.groups(model))
        base = script.point["learning_rate"]
        fractions = [rate / base for rate in (*self.rates, self.rates[-1])]
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, fractions.__getitem__)
        losses, measured, done = [], {}, 0
        model.train()
        while done < script.steps:
            for batch in train_loader:
                optimizer.zero_grad()
                loss = workload.loss(model, batch, point)
                loss.backward()
                if script.clip is not None:
                    torch.nn.utils.clip_grad_norm_(parameters, script.clip)
                optimizer.step()
                schedule.step()
                losses.append(loss.item())
                done += 1
                if done in self.evaluation_steps:
                    self.evaluate(model, sample_loader)
                    measured = self.evaluate(model, validation_loader)
                    model.train()
                if done == script.steps:
                    break
        return measured

    def evaluate(self, model, loader):
        """Means over the examples of a split, and the metrics of the whole split."""
        workload = self.workload
        model.eval()
        sums, kept, count = defaultdict(float), defaultdict(list), 0
        with torch.no_grad():
            for batch in loader:
                for name, values in workload.metrics(model, batch).items():
                    if name in workload.not_averaged or workload.declares("split_metrics"):
                        kept[name].append(values)
                    if name not in workload.not_averaged:
                        sums[name] += values.double().sum().item()
                        examples = len(values)
                count += examples
        means = {name: total / count for name, total in sums.items()}
        if not workload.declares("split_metrics"):
            return means
        each = {name: joined(parts) for name, parts in kept.items()}
        return means | workload.split_metrics(each)


class InMemory:
    """Batches of tensors in memory, by indexing."""

    def __init__(self, tensors, size, shuffle):
        self.tensors, self.size, self.shuffle = tensors, size, shuffle

    def __iter__(self) -> Iterator[tuple[torch.Tensor, ...]]:
        total = len(self.tensors[0])
        if not self.shuffle:
            for start in range(0, total, self.size):
                yield tuple(each[start : start + self.size] for each in self.tensors)
            return
        order = torch.randperm(total)
        for start in range(0, total - self.size + 1, self.size):
            yield tuple(each[order[start : start + self.size]] for each in self.tensors)


def joined(parts):
    """The values of all batches as one tensor in float64, or as one list where they are ragged."""
    if isinstance(parts[0], list):
        return [each for part in parts for each in part]
    whole = torch.cat(parts)
    return whole.double() if whole.is_floating_point() else whole


def as_tuple(split):
    return (split,) if isinstance(split, torch.Tensor) else split


class ThroughTuner:
    """The same trial as `tuner launch` trains it, without the start of the program."""

    def __init__(self, name: str, script: Script, folder: Path):
        _, self.campaign = load_campaign(EXAMPLES / f"{name}.py")
        self.script, self.folder, self.trained = script, folder, 0
        self.study = study_of_round(self.campaign, 1, script.steps)
        self.trial = trial_at(self.study, 0, Point.of(script.point), "by hand")
        self.device = torch.device("cpu")
        self.data = Data.of(self.campaign.workload, self.device)

    def train(self):
        """A function that trains the trial; the database is there before."""
        self.trained += 1
        folder = self.folder / str(self.trained)
        folder.mkdir()
        opened = open_ledger(str(folder / "tuner.sqlite"))
        ledger = opened.__enter__()
        workload = self.campaign.workload
        setting = TrainingSetup(self.study, workload, self.data, self.device, folder, "bench", fingerprint="bench")
        row = ledger.start_study("bench", self.study, "bench")
        ledger.plan_trials(row.study_id, [self.trial])
        claims = ledger.claim(row.study_id, worker="bench:0:0", lease_seconds=600)

        def work():
            (update,) = Supervisor(Alone(setting), ledger).train(claims)
            return update

        return work, partial(opened.__exit__, None, None, None)


def timed(work: Callable[[], object], clock: Callable[[], float]) -> tuple[float, Any]:
    began = clock()
    result = work()
    return clock() - began, result


def compared(name: str, rounds: int) -> float:
    """Print how both do, and return the ratio of their rates."""
    script = SCRIPTS[name]
    with tempfile.TemporaryDirectory() as folder:
        tuner = ThroughTuner(name, script, Path(folder))
        workload = tuner.campaign.workload
        assert isinstance(workload, Workload)
        clock = time.perf_counter if workload.data_workers else time.process_time
        rates = [script.point["learning_rate"] * each for each in tuner.trial.schedule.fractions()]
        plain = PlainLoop(script, workload, workload.data(), rates, set(tuner.study.budget.evaluation_steps))
        taken: dict[str, list[float]] = {"plain": [], "tuner": []}
        for number in range(rounds + 1):
            work, close = tuner.train()
            seconds, update = timed(work, clock)
            close()
            least, measured = timed(plain.train, clock)
            if number:  # the first round warms both up
                taken["plain"].append(least)
                taken["tuner"].append(seconds)
    ratio = statistics.median(p / t for p, t in zip(taken["plain"], taken["tuner"], strict=True))
    each = {kind: 1e3 * statistics.median(values) / script.steps for kind, values in taken.items()}
    metric = workload.select_by.measured
    last = next(one.value for one in reversed(update.measurements) if one.metric == str(metric))
    print(
        f"{name:18} {ratio:6.3f}  {each['plain']:8.3f} {each['tuner']:8.3f}  {script.steps:6}  "
        f"{'clock' if clock is time.perf_counter else 'CPU':5}  {metric} {measured[metric.name]:.4g} and {last:.4g}",
        flush=True,
    )
    return ratio


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(SCRIPTS), help="names of studies, separated by commas")
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    torch.set_num_threads(1)
    print(f"the rate of tuner over that of a plain loop: median of {given.rounds} rounds, goal at least {GOAL}")
    print(f"{'study':18} {'ratio':>6}  {'plain':>8} {'tuner':>8}   steps  time   at the end, plain and tuner")
    print(f"{'':25}  {'ms a step':>17}")
    ratios = [compared(name, given.rounds) for name in given.only.split(",")]
    return 0 if min(ratios) >= GOAL else 1


if __name__ == "__main__":
    sys.exit(main())
