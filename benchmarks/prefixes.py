"""What training prefixes save, and that they change no bit: against the same trials from scratch, in one run.

python benchmarks/prefixes.py            a longer round, a budget curve, a sweep that doubles its steps
python benchmarks/prefixes.py NAME       the whole playbook of reference_studies/NAME.py, as its plan prices it
"""

import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tuner.budget.transfer import lengthened, trunk_steps
from tuner.design.study_file import load_campaign
from tuner.execution.backend import Job, Silent
from tuner.execution.in_process import InProcess
from tuner.execution.loaded_workload import LoadedWorkload
from tuner.execution.machine import Machine
from tuner.rounds.curve_stages import curve_stages
from tuner.rounds.launch import Plan, Session
from tuner.rounds.plan import planned_trials, study_of_round
from tuner.rounds.price import priced_campaign
from tuner.rounds.sweep import run_sweep
from tuner.storage.store import Ledger, open_ledger
from tuner.storage.studies import StudyRow
from tuner.training.checkpoints import canonical_digest, read_state, read_weights

STUDIES = Path(__file__).parents[1] / "tests" / "reference_studies"
SHORT, LONG, TRIALS = 500, 1000, 4
LENGTHS = (200, 400, 600, 800, 1000)


@dataclass
class Place:
    """A storage of its own; `executed` counts the calls of the workload's loss in training, one a step."""

    ledger: Ledger
    loaded: LoadedWorkload
    executed: int = 0
    seconds: float = 0.0

    def train(self, study, trials):
        row = self.ledger.start_study("benchmark", study, self.loaded.fingerprint())
        self.ledger.plan_trials(row.study_id, trials)
        counted: Any = self.loaded.workload
        began, before = time.perf_counter(), counted.steps
        InProcess().run(Job(self.ledger, row, self.loaded), Silent(), lambda: False)
        self.executed += counted.steps - before
        self.seconds += time.perf_counter() - began
        return row

    def bits(self, row: StudyRow) -> list[object]:
        """Curves, last states and chosen weights of all trials of a study."""
        found: list[object] = []
        for record in self.ledger.trials(row.study_id):
            curve = self.ledger.measured_until(record.trial_id, record.step)
            found.append([(m.step, m.metric, m.value.hex()) for m in curve])
            for kept in record.checkpoints:
                if kept.kind != "trunk":
                    read = read_state if kept.kind == "latest" else read_weights
                    found.append(
                        (kept.kind, kept.step, canonical_digest(read(self.loaded.machine.checkpoint_root, kept)))
                    )
        return found


def place_in(folder, workload):
    folder.mkdir()
    return Place(open_ledger(str(folder / "t.sqlite")), LoadedWorkload(workload, Machine(folder / "checkpoints")))


def counting(workload):
    """The same workload, counting its training steps."""

    base: Any = type(workload)

    class Counting(base):
        steps = 0

        def loss(self, model, batch, point):
            type(self).steps += 1
            return super().loss(model, batch, point)

    Counting.__module__ = type(workload).__module__
    counted = Counting()
    return counted


def longer_round(campaign, folder):
    """The trials of a round continued to twice their length, against the same trials from scratch."""
    short = replace(study_of_round(campaign, 1, SHORT), num_trials=TRIALS)
    trials = planned_trials(short)
    study = replace(short, name="round-2", round=2, budget=short.budget.lengthened(LONG, campaign.evaluations))
    after = [replace(trial, schedule=lengthened(trial.schedule, LONG), pins=()) for trial in trials]
    with_prefixes, scratch = (place_in(folder / name, counting(campaign.workload)) for name in ("with", "without"))
    with_prefixes.train(short, trials)
    with_prefixes.executed, with_prefixes.seconds = 0, 0.0
    same = with_prefixes.bits(with_prefixes.train(study, after)) == scratch.bits(scratch.train(study, after))
    closed = sum(LONG - trunk_steps(t.schedule, longer.schedule) for t, longer in zip(trials, after, strict=True))
    executed = with_prefixes.executed
    print(f"round 2, {TRIALS} trials of {LONG} steps after {SHORT}: executed {executed}, closed form {closed} "
          f"({executed / closed - 1:+.1%}), from scratch {scratch.executed}; time "
          f"{with_prefixes.seconds / scratch.seconds:.2f}; {'identical' if same else 'DIFFERENT'} bits")  # fmt: skip


def budget_curve(campaign, folder):
    """Five lengths from one trunk, against five separate runs."""
    study = replace(study_of_round(campaign, 1, LENGTHS[-1]), num_trials=1)
    shared, separate = (place_in(folder / name, counting(campaign.workload)) for name in ("curve", "separate"))
    row = shared.ledger.start_study("benchmark", study, shared.loaded.fingerprint())
    shared.ledger.plan_trials(row.study_id, planned_trials(study))
    stages = curve_stages(row, shared.ledger.trial(row.study_id, 0), LENGTHS, 1)
    found = [shared.bits(shared.train(stage.study, stage.trials)) for stage in stages]
    alone = []
    for place, stage in enumerate(stages):
        run = place_in(folder / f"separate-{place}", separate.loaded.workload)
        alone.append(run.bits(run.train(stage.study, stage.trials)))
        separate.executed, separate.seconds = separate.executed + run.executed, separate.seconds + run.seconds
    print(f"budget curve of {LENGTHS}: executed {shared.executed}, separate runs {separate.executed} "
          f"({shared.executed / separate.executed:.3f}); time {shared.seconds / separate.seconds:.2f}; "
          f"{'identical' if found == alone else 'DIFFERENT'} bits")  # fmt: skip


def doubled_sweep(campaign, folder):
    """A sweep that starts too short, against what its stages would train each from its first step."""
    sweep = replace(campaign.sweep, start_steps=25, learning_rate=campaign.sweep.learning_rate[3:10], seeds=1)
    campaign = replace(campaign, sweep=sweep)
    place = place_in(folder / "sweep", counting(campaign.workload))
    run_sweep(
        Session("benchmark", replace(campaign, workload=place.loaded.workload), place.ledger, place.loaded), sweep
    )
    rows = [(row.study.name, place.ledger.trials(row.study_id)) for row in place.ledger.studies("benchmark")]
    doubled = [record for name, records in rows for record in records if "probe" in name or "grid" in name]
    executed = sum(record.step - record.inherited.steps for record in doubled)
    longest: dict[object, int] = {}
    for record in doubled:
        rate = record.point["learning_rate"]
        longest[rate] = max(longest.get(rate, 0), record.step)
    every = [record for _, records in rows for record in records]
    stages = ", ".join(name.removeprefix("sweep-1-") for name, _ in rows)
    print(f"sweep ({stages}): probes and grid executed {executed} of {sum(record.step for record in doubled)} steps, "
          f"the longest runs of all rates are {sum(longest.values())}; with refinement and seeds "
          f"{sum(r.step - r.inherited.steps for r in every)} of {sum(r.step for r in every)}")  # fmt: skip


def whole_playbook(name, folder):
    """What the plan of a campaign says, stage by stage."""
    _, campaign = load_campaign(STUDIES / f"{name}.py")
    place = place_in(folder / name, campaign.workload)
    session = Session(name, campaign, place.ledger, place.loaded)
    plans = [plan for plan in priced_campaign(session) if isinstance(plan, Plan)]
    saved, trained = sum(plan.saved_steps for plan in plans), sum(plan.steps for plan in plans)
    share = saved / (saved + trained)
    print(f"{name}, the whole playbook as planned: {saved} of {saved + trained} steps saved ({share:.1%})")


def main():
    _, campaign = load_campaign(STUDIES / "digits.py")
    with tempfile.TemporaryDirectory() as folder:
        longer_round(campaign, Path(folder))
        budget_curve(campaign, Path(folder))
        doubled_sweep(campaign, Path(folder))
        for name in sys.argv[1:]:
            whole_playbook(name, Path(folder))


if __name__ == "__main__":
    main()
