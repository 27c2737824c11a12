"""Is the tool's advice right on real data? Its budget against training three times longer, case by case.

    python benchmarks/real_data.py [--cases diabetes,wine] [--results FILE] [--to docs/about/real-data.md]

Of 16 cases each is written to FILE when it is done; those that stand there are not trained again.

Each case is a study as somebody would write it: scikit-learn's diabetes, wine and breast cancer, a generated
regression like California housing, a small CNN on generated shapes, a character model on the texts of scikit-learn's
data sets; with 0, 5 and 20 % of the training labels replaced by others where there are labels. `run --yes` is followed:
the sweep, its extensions, round 1 at the budget that it gives, round 2 at the length that the best steps of round 1
give. Where the sweep gives no number the first line that it says to write is written, and the run goes on.

The winner of round 2 is then trained with 5 fresh seeds. Against it: the points of round 1, each trained three times as
long as round 2, and the best of them with 5 fresh seeds. Longer is better where the medians differ by more than 2
standard errors and by more than 2 %. The advice says "longer" where the best steps of round 1 ask for more steps and
round 2 did not have them, or where the study is declared compute-bound; nothing where they are inconclusive; else
"enough".
"""

import argparse
import json
import re
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import sklearn
import torch
import torch.nn.functional as F
from sklearn import datasets as sets
from torch import nn

from tuner import Campaign, Round, SearchSpace, Splits, Sweep, Workload, at_most, log_grid, log_uniform, minimize
from tuner.analysis.frames import study_frames
from tuner.analysis.headline import headline
from tuner.analysis.questions.best_steps import best_steps_finding
from tuner.analysis.sweep_records import sweep_records
from tuner.analysis.unfitted import Proposal
from tuner.design.objective import FitCriterion
from tuner.design.seeds import derived_seed
from tuner.design.study import Study
from tuner.execution.loaded_workload import LoadedWorkload
from tuner.execution.machine import Machine
from tuner.records import TrialRecord
from tuner.records.sweep_outcomes import Fitted
from tuner.rounds.launch import Session, launch_study
from tuner.rounds.plan import planned_trials, study_of_round, trial_at
from tuner.rounds.playbook import Playbook
from tuner.storage.store import Ledger, open_ledger

TRIALS, SEEDS, LONGER, EVALUATIONS = 10, 5, 3, 25
TOGETHER = 10  # trials that are trained as one model, with the bits of each alone
MOST_TURNS = 4  # lines of the study file that are changed because the sweep says so
MEANINGFUL = 0.02  # of the value: a smaller difference is worth no three times longer training
NOISE = (0.0, 0.05, 0.20)
Arrays = tuple[np.ndarray, np.ndarray]


class Table(Workload):
    """Rows of numbers: two thirds to train on, a share `noise` of whose labels are those of other rows."""

    batch_size = 32

    def __init__(self, name: str, noise: float, fitted_when: FitCriterion | None):
        self.name, self.noise, self.fitted_when = name, noise, fitted_when
        self.select_by = minimize("validation/mse" if name in REGRESSIONS else "validation/loss")

    def data(self):
        x, y = rows_of(self.name)
        rng = np.random.default_rng(0)
        order = rng.permutation(len(x))
        x, y = x[order], y[order]
        count = 2 * len(x) // 3
        x = (x - x[:count].mean(0)) / x[:count].std(0)
        if self.name in REGRESSIONS:
            y = (y - y[:count].mean()) / y[:count].std()
        wrong = rng.random(count) < self.noise
        given = np.where(wrong, y[:count][rng.permutation(count)], y[:count])
        kind = torch.float32 if self.name in REGRESSIONS else torch.int64
        inputs, labels = torch.tensor(x, dtype=torch.float32), torch.tensor(y).to(kind)
        return Splits(
            training=(inputs[:count], torch.tensor(given).to(kind)), validation=(inputs[count:], labels[count:])
        )

    def model(self, point):
        x, y = rows_of(self.name)
        outputs = 1 if self.name in REGRESSIONS else int(y.max()) + 1
        return nn.Sequential(nn.Linear(x.shape[1], 32), nn.ReLU(), nn.Linear(32, outputs))

    def loss(self, model, batch, point):
        if self.name in REGRESSIONS:
            return F.mse_loss(model(batch[0])[:, 0], batch[1])
        return F.cross_entropy(model(batch[0]), batch[1])

    def metrics(self, model, batch):
        outputs = model(batch[0])
        if self.name in REGRESSIONS:
            return {"mse": (outputs[:, 0] - batch[1]) ** 2}
        return {
            "loss": F.cross_entropy(outputs, batch[1], reduction="none"),
            "error_rate": outputs.argmax(-1) != batch[1],
        }


class Shapes(Table):
    """10 x 10 images of a disc, a square or a cross somewhere, under noise; a small CNN."""

    def model(self, point):
        return nn.Sequential(
            nn.Unflatten(1, (1, 10, 10)),
            nn.Conv2d(1, 6, 3), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(6, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(32, 3),
        )  # fmt: skip


class Characters(Workload):
    """The next byte from the 8 before it, on the texts about scikit-learn's data sets; every fifth text validates."""

    batch_size = 64
    select_by = minimize("validation/loss")
    training_evaluation_examples = 512

    def data(self):
        files = sorted((Path(sklearn.__file__).parent / "datasets" / "descr").glob("*.rst"))
        texts = [path.read_bytes() for path in files]
        training = b"".join(text for place, text in enumerate(texts) if place % 5)
        return Splits(training=_windows(training), validation=_windows(b"".join(texts[::5]))[::8])

    def model(self, point):
        return nn.Sequential(nn.Embedding(128, 12), nn.Flatten(), nn.Linear(96, 96), nn.ReLU(), nn.Linear(96, 128))

    def loss(self, model, batch, point):
        return F.cross_entropy(model(batch[0][:, :8]), batch[0][:, 8])

    def metrics(self, model, batch):
        return {"loss": F.cross_entropy(model(batch[0][:, :8]), batch[0][:, 8], reduction="none")}


@cache
def rows_of(name: str) -> Arrays:
    return TABLES[name]()


def _windows(text: bytes) -> torch.Tensor:
    data = torch.frombuffer(bytearray(text), dtype=torch.uint8).long().clamp(max=127)
    return data.unfold(0, 9, 1).contiguous()


def _california() -> Arrays:
    """8 features with an interaction, a threshold, and noise of a third of the signal."""
    rng = np.random.default_rng(1)
    x = rng.normal(size=(900, 8))
    signal = x[:, 0] + 0.8 * np.sin(2.0 * x[:, 1]) + 0.6 * x[:, 2] * x[:, 3] + 0.7 * (x[:, 4] > 0.5)
    return x, signal + 0.5 * np.exp(0.3 * x[:, 5]) * rng.normal(size=len(x))


def _shapes() -> Arrays:
    rng = np.random.default_rng(2)
    rows, columns = np.mgrid[:10, :10]
    images, kinds = [], rng.integers(0, 3, 450)
    for kind in kinds:
        down, right, size = rng.integers(3, 7), rng.integers(3, 7), rng.integers(2, 4)
        y, x = abs(rows - down), abs(columns - right)
        disc, square, cross = (
            y**2 + x**2 <= size**2,
            np.maximum(y, x) <= size - 1,
            (np.minimum(y, x) == 0) & (y + x <= size),
        )
        images.append((disc, square, cross)[kind] + 0.5 * rng.normal(size=(10, 10)))
    return np.array(images).reshape(len(images), -1), kinds


TABLES: dict[str, Callable[[], Arrays]] = {
    "diabetes": lambda: sets.load_diabetes(return_X_y=True),
    "california-like": _california,
    "wine": lambda: sets.load_wine(return_X_y=True),
    "breast cancer": lambda: sets.load_breast_cancer(return_X_y=True),
    "shapes (CNN)": _shapes,
}
REGRESSIONS = ("diabetes", "california-like")
CASES = (*((name, noise) for name in TABLES for noise in NOISE), ("characters", 0.0))


@dataclass(frozen=True)
class Result:
    """A row of the table."""

    case: str
    noise: float
    sweep: str
    written: str
    best_steps: str
    steps: int
    value: float
    longer: float
    difference: float
    better: bool
    advice: str
    spent: int
    spent_longer: int
    seconds: float

    @property
    def right(self) -> str:
        if self.advice == "undecided":
            return "undecided"
        return "right" if (self.advice == "longer") == self.better else "wrong"


def campaign_of(name: str, noise: float) -> Campaign:
    """The study as it would be written: zero training error for classes, a tenth of the variance for a regression."""
    rounds = [
        Round("Which rate and weight decay?", trials=TRIALS, space=SearchSpace(
            learning_rate=log_uniform(3e-4, 1e-1), weight_decay=log_uniform(1e-4, 1.0))),
        Round("The final model", promote=2),
    ]  # fmt: skip
    if name == "characters":
        return Campaign(Characters(), rounds, production_steps=1000, evaluations=EVALUATIONS)
    criterion = at_most("training/mse", 0.1) if name in REGRESSIONS else at_most("training/error_rate", 0.0)
    kind = Shapes if name.startswith("shapes") else Table
    sweep = Sweep(learning_rate=log_grid(1e-4, 1.0, per_decade=2), start_steps=100, max_steps=1600, seeds=3)
    return Campaign(kind(name, noise, criterion), rounds, sweep=sweep, evaluations=EVALUATIONS)


def written(campaign: Campaign, line: Proposal) -> Campaign:
    """The campaign with a line as the tool says to write it."""
    rates = re.fullmatch(r"Sweep\(learning_rate=\((.*)\)\)", line.code)
    number = re.search(r"([\d.e+-]+)\)?$", line.code)
    if rates:
        return replace(campaign, sweep=replace(campaign.sweep, learning_rate=tuple(map(float, rates[1].split(", ")))))
    value = float(number[1]) if number else 0.0
    if line.code.startswith("fitted_when"):
        old: Any = campaign.workload  # Table or Shapes
        made = type(old)(old.name, old.noise, at_most(old.fitted_when.metric, value))
        return replace(campaign, workload=made)
    if line.code.startswith("Sweep(max_steps"):
        return replace(campaign, sweep=replace(campaign.sweep, max_steps=int(value)))
    if line.code.startswith("production_steps"):
        return replace(campaign, production_steps=int(value))
    return replace(campaign, rounds=[replace(campaign.rounds[0], max_train_steps=int(value)), *campaign.rounds[1:]])


def advised(ledger: Ledger, folder: Path, campaign: Campaign) -> tuple[Session, list[str]]:
    """Follow the run to its end, writing what it says to write; the session at the end, and the lines."""
    lines: list[str] = []
    while True:
        machine = Machine(folder / "checkpoints", fuse=TOGETHER)
        session = Session("case", campaign, ledger, LoadedWorkload(campaign.workload, machine))
        ending = Playbook(session, yes=True, tell=lambda text: None).run()
        if ending.decision is None:
            return session, lines
        line = next((one for one in ending.decision.lines if one.code), None)
        if line is None or len(lines) >= MOST_TURNS:
            raise SystemExit(f"the run does not end: {ending.decision}, after {lines}")
        lines.append(line.code)
        campaign = written(campaign, line)


def replicated(session: Session, study: Study, trial: TrialRecord, name: str) -> list[float]:
    """The best values of a trial's configuration with fresh seeds, at the length of its study."""
    made = replace(
        study, name=name, kind="adoption", num_trials=SEEDS, seed=derived_seed("real", name), round=None, lineage=()
    )
    trials = [
        replace(trial_at(made, n, trial.point, f"fresh {n}", trial.schedule), data_seed=derived_seed("data", name, n))
        for n in range(SEEDS)
    ]
    launch_study(session, made, trials)
    return study_frames(session.ledger, session.name, name).complete["best_value"].tolist()


def trained_longer(session: Session, steps: int) -> list[float]:
    """The points of round 1 at so many steps, and the best of them with fresh seeds."""
    study = replace(study_of_round(session.campaign, 1, steps), name="longer", kind="adoption", round=None)
    launch_study(session, study, planned_trials(study))
    frames = study_frames(session.ledger, session.name, "longer")
    best = headline(frames)
    record = session.ledger.trial(session.ledger.study(session.name, "longer").study_id, best.trial)
    return replicated(session, study, record, "longer-fresh")


def judged(name: str, noise: float) -> Result:
    """One case, from the first step to the comparison."""
    begun = time.process_time()
    with tempfile.TemporaryDirectory() as place, open_ledger(f"{place}/l.sqlite") as ledger:
        session, lines = advised(ledger, Path(place), campaign_of(name, noise))
        spent = steps_of(ledger)
        row = ledger.study("case", "round-2")
        steps = row.study.budget.max_train_steps
        best = headline(study_frames(ledger, "case", "round-2"))
        short = replicated(session, row.study, ledger.trial(row.study_id, best.trial), "fresh")
        before = steps_of(ledger)
        longer = trained_longer(session, LONGER * steps)
        verdict = best_steps_finding(study_frames(ledger, "case", "round-1")).verdict
        difference = statistics.median(short) - statistics.median(longer)
        error = (statistics.variance(short) / SEEDS + statistics.variance(longer) / SEEDS) ** 0.5
        meaningful = difference > max(2 * error, MEANINGFUL * abs(statistics.median(short)))
        first = ledger.study("case", "round-1").study.budget.max_train_steps
        return Result(
            name, noise, _sweep_words(ledger), "; ".join(lines), verdict, steps,
            statistics.median(short), statistics.median(longer), difference, meaningful,
            _advice(verdict, name, first, steps), spent, steps_of(ledger) - before, time.process_time() - begun,
        )  # fmt: skip


def _advice(verdict: str, name: str, first: int, steps: int) -> str:
    """What was said of the last length: compute-bound studies, and best steps not followed, ask for more."""
    if name == "characters":
        return "longer"
    if verdict == "inconclusive":
        return "undecided"
    return "longer" if verdict in ("maybe_too_short", "mixed") and steps <= first else "enough"


def _sweep_words(ledger: Ledger) -> str:
    records = sweep_records(ledger, "case")
    if records is None:
        return "none"
    return f"{records.outcome.steps:,} steps to fit" if isinstance(records.outcome, Fitted) else "not fitted"


def steps_of(ledger: Ledger) -> int:
    records = [record for row in ledger.studies("case") for record in ledger.trials(row.study_id)]
    return sum(record.step - record.inherited.steps for record in records)


COLUMNS = (
    "case", "wrong labels", "sweep", "lines written as advised", "best steps of round 1", "final steps",
    "value, fresh seeds", "three times longer", "advice", "longer is better", "verdict",
)  # fmt: skip


def table(results: list[Result]) -> Iterator[str]:
    """A table in Markdown, and how often the advice was right."""
    yield f"| {' | '.join(COLUMNS)} |"
    yield "|" + "---|" * len(COLUMNS)
    for one in results:
        yield f"| {' | '.join(_cells(one))} |"
    counts = {word: sum(one.right == word for one in results) for word in ("right", "wrong", "undecided")}
    lost = sum(one.better for one in results if one.right == "undecided")
    spent, longer = sum(one.spent for one in results), sum(one.spent_longer for one in results)
    yield ""
    yield (
        f"{counts['right']} right, {counts['wrong']} wrong, {counts['undecided']} undecided (longer was better in "
        f"{lost} of those). The advice took {spent:,} steps, training three times longer {longer:,}; "
        f"{sum(one.seconds for one in results):.0f} s of one CPU core in all, fresh seeds of both included."
    )


def _cells(one: Result) -> tuple[str, ...]:
    share = one.difference / abs(one.value)
    change = f"{share:.1%} better" if share > 0 else f"{-share:.1%} worse"
    line = f"`{one.written}`" if one.written else ""
    return (
        one.case, f"{one.noise:.0%}", one.sweep, line, one.best_steps.replace("_", " "), f"{one.steps:,}",
        f"{one.value:.4g}", f"{one.longer:.4g} ({change})", one.advice, "yes" if one.better else "no", one.right,
    )  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", default="", help="names with commas between; all by default")
    parser.add_argument("--results", type=Path, help="JSON lines: one a case, as it is done")
    parser.add_argument(
        "--to", type=Path, help="a file with a line '<!-- table -->', behind which the table is written"
    )
    given = parser.parse_args()
    torch.set_num_threads(1)
    names = given.cases.split(",") if given.cases else [name for name, _ in CASES]
    known = given.results.read_text().splitlines() if given.results and given.results.exists() else []
    done = {(one.case, one.noise): one for one in (Result(**json.loads(line)) for line in known)}
    for name, noise in CASES:
        if name in names and (name, noise) not in done:
            done[name, noise] = judged(name, noise)
            print(done[name, noise], done[name, noise].right, flush=True)
            if given.results:
                with given.results.open("a") as file:
                    file.write(json.dumps(asdict(done[name, noise])) + "\n")
    results = [done[case] for case in CASES if case in done]
    lines = list(table(results))
    print("\n".join(lines))
    if given.to:
        kept = given.to.read_text().partition("<!-- table -->")[0]
        given.to.write_text(kept + "<!-- table -->\n\n" + "\n".join(lines) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
