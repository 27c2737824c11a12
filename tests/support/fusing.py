"""Training trials together and one by one, and what came out of it bit for bit."""

from support.tiny import train_alone
from tuner.fused.engine import Fused
from tuner.records import Claim, State
from tuner.training.checkpoints import canonical_digest, read_state, read_weights
from tuner.training.supervisor import Supervisor


class TrialsRecorder:
    """A recorder of many trials that can hand out claims to go on with. Keeps the checkpoints each trial owns."""

    def __init__(self):
        self.updates = []
        self.transactions = 0

    def record(self, updates):
        self.transactions += bool(updates)
        self.updates += updates

    def of(self, trial):
        return [update for update in self.updates if update.trial_id == trial.number + 1]

    def checkpoints(self, trial):
        known = [update.checkpoints for update in self.of(trial) if update.checkpoints is not None]
        return known[-1] if known else ()

    def claim(self, trial):
        return Claim(trial.number + 1, len(self.updates) + 1, trial, 1, self.checkpoints(trial))

    def state(self, trial):
        return self.of(trial)[-1].state if self.of(trial) else State.WAITING


def trained_alone(setting, trials, recorder=None):
    recorder = recorder or TrialsRecorder()
    for trial in trials:
        train_alone(setting, recorder, recorder.claim(trial))
    return recorder


def trained_together(setting, trials, recorder=None):
    recorder = recorder or TrialsRecorder()
    Supervisor(Fused(setting), recorder).train([recorder.claim(trial) for trial in trials])
    return recorder


def meaning(recorder, folder, trial):
    """State, reason and step; every value of every curve; the digests of all checkpoints. Equal: the same bits."""
    last = recorder.of(trial)[-1]
    values = {}
    for update in recorder.of(trial):
        for m in update.measurements:
            assert (m.step, m.metric) not in values, "a step was recorded twice"
            values[m.step, m.metric] = m.value.hex()
    kept = [
        (c.kind, c.step, c.value, canonical_digest((read_state if c.kind == "latest" else read_weights)(folder, c)))
        for c in recorder.checkpoints(trial)
    ]
    return (last.state, last.reason, last.step, last.numerics), values, kept
