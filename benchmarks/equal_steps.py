"""The playbook's rounds against other searches at an equal number of executed training steps.

`python benchmarks/equal_steps.py --seeds 10 -o equal_steps.jsonl`: half an hour to an hour on one core. Results
are appended, and what is in the file already is not run again; `--show` prints the tables of a file.

Every method gets the same trainer, model, data, search space and schedule family, and as many steps as 16 runs of full
length. It hands in the checkpoint with the best validation metric of its best run, and that is scored on the test
split, which selects nothing. Peers are told the full length, which they could not know where a sweep finds it. The
`playbook` methods are rounds made of the product's own parts; "share" is the length of round 1 as a part of the full
length, "trunk" means that round 2 goes on from its first run's state before the decay.
"""

import argparse
import json
import math
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from weakref import WeakKeyDictionary

import numpy as np
import optuna
import pandas as pd
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(1, str(Path(__file__).parents[1] / "tests"))

from reference_studies import digits, stdlib_lm

from tuner.budget.step_budget import StepBudget
from tuner.budget.transfer import lengthened
from tuner.design.campaign import Campaign
from tuner.design.points import Point
from tuner.design.round import Round
from tuner.design.seeds import derived_seed
from tuner.design.study import Study
from tuner.design.trial import Trial
from tuner.design.workload import Workload
from tuner.errors import NotFusible
from tuner.fused.group import Group
from tuner.fused.making import exact_group
from tuner.rounds.plan import planned_trials, schedule_of, study_of_round, trial_at
from tuner.rounds.proposals import Known, Search, distribution, proposed_batch, quiet
from tuner.training.batches import Split
from tuner.training.best import BestKeeper
from tuner.training.evaluation import evaluate
from tuner.training.numerics import prepare_numerics
from tuner.training.setup import Data, TrainingSetup
from tuner.training.stability import diverged_loss
from tuner.training.trial_run import TrialRun

RUNS = 16  # of full length: what every method may spend
EVALUATIONS, FEWEST = 20, 4  # of a run of full length, and of the shortest one
FUSED = 16
CPU = torch.device("cpu")


class SmallLibrary(stdlib_lm.StandardLibrary):
    """The language model at a size at which hundreds of searches are affordable."""

    batch_size = 4
    width, hidden = 16, 64

    def data(self):
        splits = super().data()
        return replace(splits, validation=splits.validation[::4])


@dataclass(frozen=True)
class Case:
    """A workload with its full length; `metric` is what is compared on the test split."""

    name: str
    campaign: Campaign
    length: int
    metric: str
    fused: bool

    def data(self) -> tuple[Data, Split]:
        workload = self.campaign.workload
        assert isinstance(workload, Workload)
        return Data.of(workload, CPU), Split("test", workload.data().test, CPU)


def cases() -> list[Case]:
    small = replace(stdlib_lm.campaign, workload=SmallLibrary(), warmup_steps=10, production_steps=240)
    return [
        Case("digits", digits.campaign, 500, "test/loss", fused=True),
        Case("stdlib_lm", small, 240, "test/loss", fused=True),
    ]


@dataclass
class Result:
    """A run that ended: its best validation value, and what is needed to go on from its trunk or to score it."""

    trial: Trial
    value: float
    run: TrialRun
    trunk: dict[str, object] | None = None


@dataclass
class Lab:
    """One method with one seed: trains runs, counts every executed update, remembers the best of the runs handed in."""

    case: Case
    data: Data
    test: Split
    seed: int
    spent: int = 0
    trace: list[tuple[int, float, float]] = field(default_factory=list)  # steps spent, validation, test of the best
    best: WeakKeyDictionary[TrialRun, BestKeeper] = field(default_factory=WeakKeyDictionary)

    @property
    def budget(self) -> int:
        return RUNS * self.case.length

    def study(self, steps: int, trials: int = 1) -> Study:
        """A study like round 1 of the campaign, of runs of `steps`."""
        first = self.case.campaign.rounds[0]
        one = Round(first.goal, trials=trials, space=first.space)
        study = study_of_round(replace(self.case.campaign, rounds=[one], seed=self.seed), 1, steps)
        every = max(1, min(steps // FEWEST, self.case.length // EVALUATIONS))
        return replace(study, budget=StepBudget(steps, every))

    def start(self, study: Study, trial: Trial, trunk: dict[str, object] | None = None) -> TrialRun:
        setting = TrainingSetup(study, self.case.campaign.workload, self.data, CPU, Path("nowhere"), "nowhere")
        run = TrialRun(setting, trial)
        self.best[run] = BestKeeper(study.objective, study.keep_best)
        if trunk is not None:
            run.load(trunk)
        return run

    def train(self, study: Study, trials: Sequence[Trial], trunks: Sequence[dict | None] | None = None) -> list[Result]:
        """Train runs of one length to their ends, as many as can together."""
        results = []
        for i in range(0, len(trials), FUSED):
            starts = trunks[i : i + FUSED] if trunks else [None] * FUSED
            part = [
                self.start(study, trial, start) for trial, start in zip(trials[i : i + FUSED], starts, strict=False)
            ]
            results += self._train_together(study, part)
        return results

    def _train_together(self, study: Study, runs: list[TrialRun]) -> list[Result]:
        results = {id(run): Result(run.trial, math.nan, run) for run in runs}
        live = list(runs)
        group = self._grouped(runs) if self.case.fused and len(runs) > 1 else None
        stops = {*study.budget.evaluation_steps, runs[0].trial.schedule.decay_start or 0}
        for stop in sorted(step for step in stops if step > runs[0].step):
            before = live[0].step if live else stop
            self._advance(group or live, stop - before)
            self.spent += len(live) * (stop - before)
            for run in [run for run in live if diverged(run, before)]:
                live.remove(run)
                if group is not None:
                    group.retire(runs.index(run))
            for run in live:
                self._arrive(results[id(run)], stop)
        for run in live:
            kept = self.best[run].kept
            results[id(run)].value = kept[0].value if kept else math.nan
        return list(results.values())

    @staticmethod
    def _advance(runs: Group | list[TrialRun], updates: int) -> None:
        if isinstance(runs, Group):
            runs.advance(updates)
            return
        for run in runs:
            run.advance(run.step + updates)

    def _arrive(self, result: Result, stop: int) -> None:
        """Keep the state where the decay begins, and evaluate where it is time to."""
        if stop == result.trial.schedule.decay_start:
            result.trunk = copied(result.run.state())
        if stop in result.run.setup.study.budget.evaluation_steps:
            self.measure(result.run)

    @staticmethod
    def _grouped(runs: list[TrialRun]) -> Group | None:
        try:
            return exact_group(runs)
        except NotFusible:
            return None

    def measure(self, run: TrialRun) -> float:
        """The validation metric here; the best weights are kept."""
        metric = run.setup.study.objective.metric
        size = run.setup.evaluation_batch_size
        value = evaluate(self.case.campaign.workload, run.model, self.data.validation, batch_size=size)[metric]
        self.best[run].offer(run.step, value, run.weights)
        run.model.train()
        return value

    def hand_in(self, run: TrialRun) -> None:
        """A run that may be the final one; the test split is read for a new best only, and decides nothing."""
        if not self.best[run].kept:
            return
        kept = self.best[run].kept[0]
        if self.trace and not kept.value < self.trace[-1][1]:
            return
        run.model.load_state_dict(kept.weights)
        size = run.setup.evaluation_batch_size
        test = evaluate(self.case.campaign.workload, run.model, self.test, batch_size=size)[self.case.metric]
        self.trace.append((self.spent, kept.value, test))


def diverged(run: TrialRun, before: int) -> bool:
    """Whether a loss since step `before` is not finite; the losses are dropped."""
    losses, run.losses = run.losses, []
    return bool(losses) and diverged_loss(torch.stack(losses).tolist(), before) is not None


def copied(state):
    if isinstance(state, torch.Tensor):
        return state.clone()
    if isinstance(state, dict):
        return {key: copied(value) for key, value in state.items()}
    return [copied(item) for item in state] if isinstance(state, list) else state


# Methods


def live_search(lab: Lab, sampler: optuna.samplers.BaseSampler, pruner: optuna.pruners.BasePruner) -> None:
    """An ordinary Optuna study: one trial after the other, until the steps are spent."""
    space, steps = lab.case.campaign.rounds[0].space, lab.case.length
    study = lab.study(steps)
    with quiet():
        searched = optuna.create_study(sampler=sampler, pruner=pruner, study_name=f"{lab.case.name}-{lab.seed}")
        while lab.spent < lab.budget:
            trial = searched.ask({h.name: distribution(h) for h in space})
            point = Point.of(trial.params | {name: constant.value for name, constant in space.fixed})
            run = lab.start(study, trial_at(study, trial.number, point, "optuna"))
            state = follow(lab, run, trial)
            lab.hand_in(run)
            kept = lab.best[run].kept
            value = kept[0].value if kept else None
            complete = state is optuna.trial.TrialState.COMPLETE
            searched.tell(trial, value if complete else None, state=state)


def follow(lab: Lab, run: TrialRun, trial: optuna.Trial) -> optuna.trial.TrialState:
    """Train with a report at every evaluation, to the end of the run or of the budget."""
    for place, stop in enumerate(run.setup.study.budget.evaluation_steps, 1):
        if lab.spent + stop - run.step > lab.budget:
            lab.spent = lab.budget
            return optuna.trial.TrialState.PRUNED
        before = run.step
        run.advance(stop)
        lab.spent += stop - before
        if diverged(run, before):
            lab.best[run].kept.clear()
            return optuna.trial.TrialState.FAIL
        trial.report(lab.measure(run), place)
        if trial.should_prune():
            return optuna.trial.TrialState.PRUNED
    return optuna.trial.TrialState.COMPLETE


def random_search(lab: Lab) -> None:
    live_search(lab, optuna.samplers.RandomSampler(seed=lab.seed), optuna.pruners.NopPruner())


def tpe(lab: Lab) -> None:
    live_search(lab, optuna.samplers.TPESampler(seed=lab.seed), optuna.pruners.NopPruner())


def tpe_after_5(lab: Lab) -> None:
    live_search(lab, optuna.samplers.TPESampler(seed=lab.seed, n_startup_trials=5), optuna.pruners.NopPruner())


def hyperband(lab: Lab) -> None:
    pruner = optuna.pruners.HyperbandPruner(min_resource=1, max_resource=EVALUATIONS, reduction_factor=3)
    live_search(lab, optuna.samplers.TPESampler(seed=lab.seed), pruner)


@dataclass(frozen=True)
class Plan:
    """Two rounds. share: length of round 1 as a part of the full one; modelled: the part of its points proposed by TPE
    in batches of 8; decay: "hold" keeps the decay's steps, "rescale" its share; runs: steps to spend, in full runs.
    """

    share: float = 0.1
    promote: int = 3
    modelled: float = 0.0
    decay: str = "hold"
    trunk: bool = False
    runs: float = RUNS


def playbook(lab: Lab, plan: Plan) -> None:
    """Many short runs, then the best points at full length."""
    full, short = lab.case.length, max(FEWEST, round(plan.share * lab.case.length))
    study = lab.study(short)
    shared = (schedule_of(study, planned_trials(study)[0].point).decay_start or 0) if plan.trunk else 0
    trials = int((plan.runs * full - plan.promote * (full - shared)) // short)
    study = lab.study(short, trials)
    first = first_round(lab, study, plan)
    ranked = sorted((one for one in first if math.isfinite(one.value)), key=lambda one: one.value)[: plan.promote]
    final = lab.study(full)
    promoted = [carried(final, one, place, plan) for place, one in enumerate(ranked)]
    for result in lab.train(final, promoted, [one.trunk if plan.trunk else None for one in ranked]):
        if math.isfinite(result.value):
            lab.hand_in(result.run)
    assert lab.spent <= plan.runs * full


def carried(study: Study, one: Result, place: int, plan: Plan) -> Trial:
    """The point at full length, with the same seeds where it goes on from its trunk."""
    mode = "hold_then_decay" if plan.decay == "hold" else "rescale"
    schedule = lengthened(one.trial.schedule, study.budget.max_train_steps, mode)
    if plan.trunk:
        return replace(one.trial, schedule=schedule)
    fresh = replace(study, seed=derived_seed("round 2", study.seed))
    return trial_at(fresh, place, one.trial.point, "promoted", schedule)


def first_round(lab: Lab, study: Study, plan: Plan) -> list[Result]:
    """Quasi-random points, then batches that TPE proposes from all before them."""
    planned = planned_trials(study)
    modelled = round(plan.modelled * len(planned))
    results = lab.train(study, planned[: len(planned) - modelled])
    first = [known(one) for one in results]
    search = Search(study.space, study.objective.direction, "tpe", 8, study.seed)
    batches: list[list[Known]] = []
    while len(results) < len(planned):
        points = proposed_batch(search, first, batches)[: len(planned) - len(results)]
        new = lab.train(study, [trial_at(study, len(results) + i, p, "tpe") for i, p in enumerate(points)])
        batches.append([known(one) for one in new])
        results += new
    return results


def known(one: Result) -> Known:
    finite = math.isfinite(one.value)
    return Known(one.trial.point, one.value if finite else None, finite)


PEERS = {"random": random_search, "tpe": tpe, "tpe after 5": tpe_after_5, "hyperband + tpe": hyperband}
PLANS = {
    "playbook 10%": Plan(),
    "playbook 10% rescale": Plan(decay="rescale"),
    "playbook 20% tpe": Plan(0.2, modelled=0.5, decay="rescale"),
    "playbook 20% tpe trunk": Plan(0.2, modelled=0.5, decay="rescale", trunk=True),
    "playbook 40% tpe trunk": Plan(0.4, modelled=0.5, decay="rescale", trunk=True),
    "playbook 20%": Plan(0.2, decay="rescale"),
    "playbook 50%": Plan(0.5, decay="rescale"),
}


BUDGETED = ("playbook 10% rescale", "playbook 20% tpe trunk")  # with fewer steps, to see how many reach a peer


def methods() -> dict[str, object]:
    fewer = {f"{name}, {runs} runs": replace(PLANS[name], runs=runs) for name in BUDGETED for runs in (6, 8, 12)}
    return {**PEERS, **PLANS, **fewer}


def run_all(seeds: Sequence[int], target: Path, only: str) -> None:
    """Every method of every case with every seed, seeds outermost, so that what is there so far can be compared."""
    done = {(row["case"], row["method"], row["seed"]) for row in rows(target)}
    known_cases = [(case, *case.data()) for case in cases()]
    for seed in seeds:
        for case, data, test in known_cases:
            for name, method in methods().items():
                if (case.name, name, seed) in done or not chosen(f"{case.name} {name}", only):
                    continue
                lab, started = Lab(case, data, test, seed), time.process_time()
                playbook(lab, method) if isinstance(method, Plan) else method(lab)
                row = {"case": case.name, "method": name, "seed": seed, "steps": lab.spent, "trace": lab.trace}
                with target.open("a") as file:
                    file.write(json.dumps(row | {"seconds": time.process_time() - started}) + "\n")


def chosen(name: str, only: str) -> bool:
    """Whether a case and method is asked for; those with fewer steps only when their name is."""
    return only in name and (not name.endswith(" runs") or only.endswith("runs"))


def rows(target: Path) -> Iterator[dict]:
    if target.exists():
        yield from map(json.loads, target.read_text().splitlines())


def show(target: Path) -> None:
    """Medians with quartiles, and differences paired by seed, against the best peer of each case."""
    table = pd.DataFrame(
        [{**row, "test": row["trace"][-1][2], "validation": row["trace"][-1][1]} for row in rows(target)]
    )
    rng = np.random.default_rng(0)
    for case, part in table.groupby("case"):
        wide = part.pivot_table(index="seed", columns="method", values="test")
        best = wide[[name for name in PEERS if name in wide]].median().idxmin()
        print(f"\n{case}: test metric at equal steps; difference to {best!r} paired by seed, 90 % of medians resampled")
        order = {name: place for place, name in enumerate(methods())}
        for name in sorted(wide, key=order.get):
            values = wide[name].dropna()
            pairs = (wide[name] - wide[best]).dropna().to_numpy()
            drawn = np.median(rng.choice(pairs, (4000, len(pairs))), axis=1)
            low, high = np.quantile(drawn, [0.05, 0.95])
            steps = part[part["method"] == name]["steps"].median()
            print(
                f"  {name:30s} n={len(values):3d} median {values.median():.4f} "
                f"[{values.quantile(0.25):.4f}, {values.quantile(0.75):.4f}]  difference {np.median(pairs):+.4f} "
                f"[{low:+.4f}, {high:+.4f}], better in {np.mean(pairs < 0):.0%}; {steps:,.0f} steps"
            )


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--seeds", type=int, default=10)
    options.add_argument("--first", type=int, default=0)
    options.add_argument("--only", default="", help="part of the name of a case and method, or its end")
    options.add_argument("--show", action="store_true")
    options.add_argument("-o", "--output", type=Path, default=Path("equal_steps.jsonl"))
    given = options.parse_args()
    if not given.show:
        prepare_numerics(CPU, 1)
        run_all(range(given.first, given.first + given.seeds), given.output, given.only)
    show(given.output)


if __name__ == "__main__":
    main()
