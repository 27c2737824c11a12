"""Every exception `tuner` raises on purpose, and when.

TunerError
├── InputError            wrong input: the message names the value, the rule and the way out    exit code 2
│   ├── DeclarationError      a study file, search space, schedule or budget that cannot be
│   ├── WorkloadError         the workload's model, loss, metrics or data break their contract
│   ├── StudyChanged          the study was started before with another declaration, code or data
│   ├── TransferError         no rule carries the schedule to another length, and the study declares none
│   ├── NotFusible            a model or loss that cannot be part of one stacked model
│   └── StorageError          a Ledger that cannot be opened, or does not hold what was asked for
│       ├── NoLedger              there is none (yet): no file, or a database without its tables
│       └── NoServer              no database server answers at the address
├── Infeasible            raised by a user's model or loss to reject a point
├── TrialsFailed          trials FAILED, and the result would rest on them; see their reasons      exit code 4
├── AttemptLost           a signal ended the program that trained a trial; the trial is tried again
├── LeaseLost             another worker owns this trial now; this one must not write
├── CorruptCheckpoint     a checkpoint file that is not what was recorded
├── Paused                the machine gave way (disk full, ...); run again to continue           exit code 75
│   ├── Unreachable           the database does not answer; unwritten records are kept, and written later
│   │   └── ServerFull            the server has no free connection; the program waits longer
│   ├── RecordsGone           the SQLite file was deleted, replaced or moved while it was open; what it held is saved
│   └── DeviceLost            the accelerator's context is dead: this process cannot train any more
│       └── GangLost              a process of those that train one trial together ended, or does not answer
└── Interrupted           a signal stopped the command; run again to continue                    exit code 130
"""


class TunerError(Exception):
    """Anything `tuner` raises on purpose."""


class InputError(TunerError):
    """Wrong input. Raised before anything is trained or written."""


class DeclarationError(InputError):
    """A study file declares what is not possible: an empty range, an unknown optimizer, a searched seed."""


class WorkloadError(InputError):
    """A workload's model, loss, metrics or data break their contract; found on the first batch."""


class StudyChanged(InputError):
    """The study was started with another declaration, code, arguments, data or weights; the message names which."""


class TransferError(InputError):
    """A schedule has no rule that carries it to another number of steps (A38, A43)."""


class NotFusible(InputError):
    """A model or loss that cannot be part of one stacked model; the message names the operation."""


class StorageError(InputError):
    """The Ledger cannot be opened, is of a newer version, or does not hold what was asked for."""


class NoLedger(StorageError):
    """There is no Ledger at this place, or not yet: no file, or a database without its tables."""


class NoServer(StorageError):
    """No database server answers at this address, and none did before: the address is wrong, or it does not run yet."""


class Infeasible(TunerError):
    """Raise it in `Workload.model` or `loss` to reject a point; the trial ends as INFEASIBLE with the message."""


class TrialsFailed(TunerError):
    """Trials FAILED, and the others are not enough for the result; the message lists trials and reasons."""


class AttemptLost(TunerError):
    """A signal that is not ours ended the program that trained a trial, or it stalled: the attempt counts, as lost."""


class LeaseLost(TunerError):
    """The fence of a trial has moved on: another worker owns it, and this write was refused."""


class CorruptCheckpoint(TunerError):
    """A checkpoint whose sha256 is not the recorded one, or that cannot be read."""


class Paused(TunerError):
    """The machine gave way (full or read-only disk): no trial is to blame, and running again continues."""


class Unreachable(Paused):
    """The database does not answer, or its answer was lost: the write may or may not have happened."""


class ServerFull(Unreachable):
    """The database server has no free connection, also after the wait: other clients hold all of them."""


class RecordsGone(Paused):
    """The SQLite file is not at its path any more, or is another one; the message says where the records are now."""


class DeviceLost(Paused):
    """The accelerator's context is dead (assert, ECC, illegal access): only a new process can go on."""


class GangLost(DeviceLost):
    """A rank of a gang ended or does not answer: the attempt counts, and only new processes can go on."""


class Interrupted(TunerError):
    """A signal stopped the command; the next run replays everything since the last commit exactly."""
