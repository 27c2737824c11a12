import json

import numpy as np
from analysis.handmade import frames_of_curves, study

from tuner.analysis.checklist import foundation_findings


def test_the_questions_come_in_the_playbooks_order_and_as_plain_data():
    rng = np.random.default_rng(0)
    frames = frames_of_curves(study(), rng.random((12, 50)).tolist())
    found = foundation_findings(frames)
    assert [finding.question for finding in found] == ["boundary", "infeasible", "best_steps"]
    for finding in found:
        json.dumps(finding.to_json(), allow_nan=False)
        assert finding.thresholds
        assert finding.action
