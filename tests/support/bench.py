"""A study in a folder and worker processes that train it."""

from contextlib import closing, nullcontext

from support.records import CURVES, rows
from support.study_files import write_study
from tuner.design.study_file import load_campaign
from tuner.execution.backend import Job, Silent
from tuner.execution.in_process import InProcess
from tuner.execution.loaded_workload import LoadedWorkload
from tuner.execution.machine import Lease, Machine
from tuner.execution.workers import Workers
from tuner.rounds.plan import planned_trials, study_of_round
from tuner.storage.store import open_ledger
from tuner.storage.verify import study_problems
from tuner.training.alone import Alone
from tuner.training.settings import COMMIT_SECONDS

STALL_SECONDS = 60.0
LOSS = "return F.cross_entropy(model(batch[0]), batch[1])"


class Bench:
    """A study file in a folder, its Ledger, and worker processes."""

    def __init__(self, folder, *, steps=60, trials=4, loss="", slices=1):
        self.folder = folder
        folder.mkdir(exist_ok=True)
        replace = [(LOSS, loss + "\n        " + LOSS), ("batch_size = 8", f"batch_size, slices = 8, {slices}")]
        self.file = write_study(folder, steps=steps, trials=trials, replace=replace[: 1 + (slices > 1)])
        self.url = f"sqlite:///{folder}/runs/tuner.sqlite"

    def run(
        self,
        count,
        *,
        stop=lambda: False,
        listener=None,
        lease_seconds=120.0,
        fuse="off",
        when_read=lambda: None,
        backend=None,
        engine=Alone,
        gang=1,
        stall_seconds=STALL_SECONDS,
    ):
        _, campaign = load_campaign(self.file)
        study = study_of_round(campaign, 1, campaign.rounds[0].max_train_steps)
        root = self.folder / "runs" / "checkpoints"
        with open_ledger(self.url) as ledger:
            machine = Machine(
                root, "cpu", fuse=fuse, lease=Lease(lease_seconds), commit_seconds=0.0 if count else COMMIT_SECONDS,
                worker_count=count or 1, stall_seconds=stall_seconds, gang=gang,
            )  # fmt: skip
            local = LoadedWorkload(campaign.workload, machine, self.file, engine)
            row = ledger.start_study("tiny", study, local.fingerprint())
            ledger.plan_trials(row.study_id, planned_trials(study))
            when_read()
            given = nullcontext(backend or InProcess())
            with closing(Workers(self.url)) if count and backend is None else given as trains:
                trains.run(Job(ledger, row, local), listener or Silent(), stop)
            assert study_problems(ledger, row, root, f"tiny/{study.name}") == []

    def rates(self):
        """The dropout of each trial."""
        _, campaign = load_campaign(self.file)
        return [trial.point["dropout"] for trial in planned_trials(study_of_round(campaign, 1, 20))]

    def rows(self, query=CURVES):
        return rows(self.folder, query)


class Heard(Silent):
    """A listener that remembers."""

    def __init__(self):
        self.started, self.ended, self.steps, self.updates = [], [], [], []

    def trial_started(self, claim):
        self.started.append((claim.trial.number, claim.attempt))

    def trial_stepped(self, claim, step):
        self.steps.append((claim.trial.number, step))

    def trial_ended(self, claim, update):
        self.ended.append((claim.trial.number, update.state, update.reason))
        self.updates.append((claim, update))
