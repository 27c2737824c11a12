"""What training leaves behind, and the seam between the code that trains and the code that stores.

`training` and `storage` do not know each other: a trainer hands `TrialUpdate`s to a `Recorder`, and a recorder
commits those of many trials at once.
"""

from tuner.records.checkpoint_records import GROUP_FOLDER, Checkpoint, CheckpointKind, PrefixKey
from tuner.records.numerics_record import Numerics
from tuner.records.recorder import Claim, FinishedTrial, Prefix, Price, Recorder, TrialUpdate
from tuner.records.trial_records import (
    Inherited,
    Measurement,
    State,
    TrainingCurve,
    TrialRecord,
    UnreadableTrial,
)

TEST_SCORE = "test_score"  # the conclusion about a campaign that holds the score of its final model
RETENTION = "retention"  # the conclusion about a study some of whose checkpoints were deleted to save room

__all__ = [
    "GROUP_FOLDER",
    "RETENTION",
    "TEST_SCORE",
    "Checkpoint",
    "CheckpointKind",
    "Claim",
    "FinishedTrial",
    "Inherited",
    "Measurement",
    "Numerics",
    "Prefix",
    "PrefixKey",
    "Price",
    "Recorder",
    "State",
    "TrainingCurve",
    "TrialRecord",
    "TrialUpdate",
    "UnreadableTrial",
]
