import json

import numpy as np
from analysis.handmade import frames_of_curves, study

from tuner.analysis.checklist import QUESTIONS, checklist_findings


def test_the_questions_come_in_the_playbooks_order_and_as_plain_data():
    rng = np.random.default_rng(0)
    frames = frames_of_curves(study(), rng.random((12, 50)).tolist())
    found = checklist_findings(frames)
    expected = [asked.question for asked in QUESTIONS if asked.question not in ("effort", "isolation")]
    assert [finding.question for finding in found] == expected
    for finding in found:
        json.dumps(finding.to_json(), allow_nan=False)
        assert finding.thresholds
        assert finding.action
