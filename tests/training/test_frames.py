"""One step of training is few calls away from the supervisor."""

import traceback
from pathlib import Path

from support.fusing import TrialsRecorder, trained_alone
from support.tiny import Tiny, setting_for, tiny_study

import tuner
from tuner.rounds.plan import planned_trials

MOST = 4  # functions of the package, from the supervisor to whoever calls the loss
PACKAGE = str(Path(tuner.__file__).parent)


class Traced(Tiny):
    """Notes by which functions of the package its loss was called."""

    def loss(self, model, batch, point):
        frames = traceback.extract_stack()
        self.calls = [frame.name for frame in frames if frame.filename.startswith(PACKAGE)]
        return super().loss(model, batch, point)


def test_a_step_is_at_most_four_calls_below_the_supervisor(tmp_path):
    study, workload = tiny_study(), Traced()
    trained_alone(setting_for(study, tmp_path, workload), planned_trials(study)[:1], TrialsRecorder())
    assert workload.calls[0] == "train"
    assert len(workload.calls) <= MOST, workload.calls
