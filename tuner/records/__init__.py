"""What training leaves behind, and the seam between the code that trains and the code that stores.

`training` and `storage` do not know each other: a trainer hands `TrialUpdate`s to a `Recorder`, and a recorder
commits those of many trials at once.
"""

from tuner.records.checkpoint_records import (
    COMMAND_MARK,
    FROZEN_FOLDER,
    GROUP_FOLDER,
    LOOP_FOLDER,
    BaseFile,
    Checkpoint,
    CheckpointKind,
    PrefixKey,
    is_shard,
    shard_kind,
)
from tuner.records.numerics_record import Numerics
from tuner.records.promises import MeasuredPromises, Promises
from tuner.records.recorder import Claim, FinishedTrial, Prefix, Price, Recorder, TrialUpdate
from tuner.records.step_memory import StepMemory
from tuner.records.trial_records import (
    STOPPED_EARLY,
    GroupRecord,
    Inherited,
    Measurement,
    State,
    TrainingCurve,
    TrialRecord,
    UnreadableTrial,
    groups_words,
)

__all__ = [
    "COMMAND_MARK",
    "FROZEN_FOLDER",
    "GROUP_FOLDER",
    "LOOP_FOLDER",
    "STOPPED_EARLY",
    "BaseFile",
    "Checkpoint",
    "CheckpointKind",
    "Claim",
    "FinishedTrial",
    "GroupRecord",
    "Inherited",
    "MeasuredPromises",
    "Measurement",
    "Numerics",
    "Prefix",
    "PrefixKey",
    "Price",
    "Promises",
    "Recorder",
    "State",
    "StepMemory",
    "TrainingCurve",
    "TrialRecord",
    "TrialUpdate",
    "UnreadableTrial",
    "groups_words",
    "is_shard",
    "shard_kind",
]
