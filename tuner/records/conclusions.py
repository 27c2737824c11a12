"""Conclusions about campaigns and studies: one record for each kind that the Ledger keeps.

A record knows under which kind it is kept, and its JSON; the Ledger checks the types when it reads. Nothing else
names a kind.
"""

from base64 import b64decode, b64encode
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar, Protocol, Self, TypeVar

from tuner.errors import StorageError
from tuner.records.budget_origin import NOT_RECORDED, BudgetOrigin
from tuner.records.sweep_outcomes import Fitted, Invalid, NotFitted, SweepOutcome
from tuner.shown import quoted

T = TypeVar("T")
Json = Mapping[str, Any]


class Read(Protocol):
    """Makes a value of a type from what JSON gave. Raises StorageError, which names the key, for another type."""

    def __call__(self, kind: type[T], data: object, /) -> T: ...


@dataclass(frozen=True, slots=True)
class Conclusion:
    """What was concluded about a campaign or a study. `KIND` names it in the Ledger and never changes.

    ONLY_SAVES_TIME: nothing rests on it, and it is found out again where it is missing. So where it cannot be read it
    counts as missing, with a warning; every other kind is an error then.
    """

    KIND: ClassVar[str]
    ONLY_SAVES_TIME: ClassVar[bool] = False

    def as_json(self) -> dict[str, Any]:
        """The stored form: the fields by name."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Json, read: Read) -> Self:
        """The inverse of `as_json`. Raises StorageError."""
        return read(cls, data)


@dataclass(frozen=True, slots=True)
class RegimeVerdict(Conclusion):
    """How the rounds of a campaign are planned (A1): the verdict that holds, and the verdict of the evidence alone."""

    KIND: ClassVar[str] = "regime"
    verdict: str
    evidence: str


@dataclass(frozen=True, slots=True)
class StudyProfile(Conclusion):
    """The profile ("exact" or "fast") under which all trials of a study are trained."""

    KIND: ClassVar[str] = "profile"
    profile: str


@dataclass(frozen=True, slots=True)
class StudyNumerics(Conclusion):
    """The Numerics (as text) of the process that began to train a study: those of other processes are compared.

    Where this is missing, those of its first trial are.
    """

    KIND: ClassVar[str] = "numerics"
    ONLY_SAVES_TIME: ClassVar[bool] = True
    numerics: str


@dataclass(frozen=True, slots=True)
class FusionChoice:
    """How trials of one shape are trained together: how many, why, and how each operation is run (`ways`).

    seconds: of a step of all of them, as probed. self_check: "identical", "equal to rounding", or "" before a check.
    numerics: the text of the Numerics under which it was found out.
    """

    trials: int
    reason: str
    ways: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    self_check: str = ""
    numerics: str = ""


@dataclass(frozen=True, slots=True)
class FusionChoices(Conclusion):
    """What was found out about training trials together, by shape group."""

    KIND: ClassVar[str] = "fusion"
    ONLY_SAVES_TIME: ClassVar[bool] = True
    by_group: dict[str, FusionChoice] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """The stored form: the choices by group."""
        return {group: asdict(choice) for group, choice in self.by_group.items()}

    @classmethod
    def from_json(cls, data: Json, read: Read) -> Self:
        """The inverse of `as_json`. Raises StorageError."""
        return cls({group: read(FusionChoice, choice) for group, choice in data.items()})


@dataclass(frozen=True, slots=True)
class BudgetRecord(Conclusion):
    """Why a study has its step budget, from which study it was chosen, and what it was chosen under (part to value)."""

    KIND: ClassVar[str] = "budget"
    origin: BudgetOrigin = NOT_RECORDED
    source: str | None = None
    basis: dict[str, str] = field(default_factory=dict)

    @classmethod
    def from_json(cls, data: Json, read: Read) -> Self:
        """The inverse of `as_json`; versions before 0.2 stored the sentence of an origin. Raises StorageError."""
        origin = data.get("origin") or asdict(NOT_RECORDED)
        if isinstance(origin, str):
            origin = asdict(BudgetOrigin("words", words=origin))
        return read(cls, {**data, "origin": origin})


@dataclass(frozen=True, slots=True)
class SweepConclusion(Conclusion):
    """The outcome of the sweep `name`; round 1 trains `margin` times the steps to fit."""

    KIND: ClassVar[str] = "sweep"
    name: str
    margin: float
    outcome: SweepOutcome

    def as_json(self) -> dict[str, Any]:
        """The stored form: the fields of the outcome with the name of its type, and those of the sweep."""
        tag = next(tag for tag, kind in _OUTCOMES.items() if isinstance(self.outcome, kind))
        return {"outcome": tag, **asdict(self.outcome), "name": self.name, "margin": self.margin}

    @classmethod
    def from_json(cls, data: Json, read: Read) -> Self:
        """The inverse of `as_json`. Raises StorageError."""
        kind = _OUTCOMES.get(str(data.get("outcome")))
        if kind is None:
            raise StorageError(f"outcome: {quoted(data.get('outcome'))} is none of {', '.join(_OUTCOMES)}")
        outcome: SweepOutcome = read(kind, {key: data[key] for key in data.keys() - {"outcome", "name", "margin"}})
        return cls(read(str, data.get("name")), read(float, data.get("margin")), outcome)


_OUTCOMES: Mapping[str, type[Any]] = {"fitted": Fitted, "not_fitted": NotFitted, "invalid": Invalid}


@dataclass(frozen=True, slots=True)
class FinalScore(Conclusion):
    """The score of a campaign's final model on the test split; made once (D31).

    `value` is that of the objective at `step` on validation, `checkpoint` the sha256 of the file that was scored.
    """

    KIND: ClassVar[str] = "test_score"
    study: str
    trial: int
    step: int
    objective: str
    value: float
    metrics: dict[str, float]
    examples: int
    checkpoint: str


@dataclass(frozen=True, slots=True)
class Retention(Conclusion):
    """Some checkpoints of a study were deleted to save room, their kinds in this order."""

    KIND: ClassVar[str] = "retention"
    order: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Adoption(Conclusion):
    """The verdict of a contest: is the candidate better than the baseline (B31-B34)?

    gain, low, high: the difference of means with its interval at `level`, in the unit of the metric; None where it is
    not known. metric: the direction and the metric, like "minimize validation/loss".
    """

    KIND: ClassVar[str] = "adoption"
    candidate: str
    baseline: str
    verdict: str
    gain: float | None
    low: float | None
    high: float | None
    level: float
    minimum_gain: float
    replicates: int
    metric: str


@dataclass(frozen=True, slots=True)
class CurveStudies(Conclusion):
    """The studies of a campaign that make the newest budget curve, one for each length."""

    KIND: ClassVar[str] = "budget_curve"
    studies: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class StabilityStudies(Conclusion):
    """The studies of a campaign that make its newest stability study.

    rates: of the rates at and above the best one. warmups: one for each length of the warmup that was tried, the
    shortest first; none where no rate was unstable, or before these are trained.
    """

    KIND: ClassVar[str] = "stability"
    rates: str
    warmups: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class FiniteValidation(Conclusion):
    """Each example of these validation data (a digest) has a finite value of the metric `by`."""

    KIND: ClassVar[str] = "finite validation"
    ONLY_SAVES_TIME: ClassVar[bool] = True
    data: str | None
    by: str

    def as_json(self) -> dict[str, Any]:
        """The stored form."""
        return {"validation data": self.data, "by": self.by}

    @classmethod
    def from_json(cls, data: Json, read: Read) -> Self:
        """The inverse of `as_json`. Raises StorageError."""
        return read(cls, {"data": data.get("validation data"), "by": data.get("by")})


@dataclass(frozen=True, slots=True)
class LoopPromises(Conclusion):
    """What was measured of a loop that trains itself: what it promises, and why not more (promise to words).

    fingerprint: of the workload as the study uses it. numerics: the text of the Numerics. regularized: whether it
    trained with regularization, as all but a sweep do.
    """

    KIND: ClassVar[str] = "loop promises"
    ONLY_SAVES_TIME: ClassVar[bool] = True
    fingerprint: str
    numerics: str
    regularized: bool
    promises: dict[str, bool]
    why: dict[str, str]


@dataclass(frozen=True, slots=True)
class Selected:
    """A checkpoint of an earlier stage, or a file of weights, from which trials start.

    digest: the sha256 of its weights as a file of `num_bytes`; "" while nothing of it is trained. file: our own copy,
    relative to the checkpoint folder; "" before it is made. campaign, study, trial, step: which checkpoint; empty of a
    file, whose path is `path`. storage: where that is another one. steps: updates behind the weights, those of earlier
    stages included. value: by the metric of its own stage. adopted: because it was. read: the sha256 of the file that
    they were read from, which is the checkpoint, or what was downloaded; "" where it is not known.
    """

    digest: str
    num_bytes: int
    file: str = ""
    campaign: str = ""
    study: str = ""
    trial: int = 0
    step: int = 0
    steps: int = 0
    value: float | None = None
    adopted: bool = False
    path: str = ""
    storage: str = ""
    read: str = ""

    @property
    def words(self) -> str:
        """Which checkpoint it is, for a person."""
        if self.path:
            return f"{self.path} (sha256 {self.digest[:12]})"
        if not self.digest:
            return f"the model of {self.campaign}"
        return f"trial {self.trial} of {self.campaign} {self.study} at step {self.step:,}"


@dataclass(frozen=True, slots=True)
class StageStart(Conclusion):
    """The weights from which the trials of a study start (`Campaign(start_from=...)`), the best candidate first.

    parameters, fresh, renamed: as they are declared.
    """

    KIND: ClassVar[str] = "start"
    candidates: tuple[Selected, ...]
    parameters: str = "*"
    fresh: str = ""
    renamed: dict[str, str] = field(default_factory=dict)

    @property
    def identity(self) -> str:
        """All of it that decides the bits of a trial, as text."""
        digests = " ".join(one.digest[:16] for one in self.candidates)
        renamed = "".join(f", {here} from {there}" for here, there in sorted(self.renamed.items()))
        fresh = f" but {self.fresh}" if self.fresh else ""
        return f"{self.parameters}{fresh} of {digests}{renamed}"

    @property
    def inherited_steps(self) -> int:
        """Updates behind the weights of the best candidate."""
        return self.candidates[0].steps


@dataclass(frozen=True, slots=True)
class InputSet:
    """Hashes of the training inputs of a campaign, by which a later stage finds its validation inputs among them.

    hashes: sorted 64-bit numbers, little-endian, as base64. below: all hashes up to this one are there. looked_at: so
    many of the `examples` were hashed; None where their number is not known.
    """

    campaign: str
    hashes: str
    below: int
    looked_at: int
    examples: int | None

    @classmethod
    def of(cls, campaign: str, content: bytes, below: int, looked_at: int, examples: int | None) -> Self:
        """The set of hashes that are given as bytes."""
        return cls(campaign, b64encode(content).decode(), below, looked_at, examples)

    @property
    def content(self) -> bytes:
        """The hashes as bytes."""
        return b64decode(self.hashes)


@dataclass(frozen=True, slots=True)
class TrainingInputs(Conclusion):
    """The training inputs of a campaign, and behind them those of all stages before it."""

    KIND: ClassVar[str] = "training inputs"
    ONLY_SAVES_TIME: ClassVar[bool] = True
    sets: tuple[InputSet, ...]


@dataclass(frozen=True, slots=True)
class FoundInputs:
    """How many validation inputs of a stage occur among the training inputs of an earlier one.

    found: of `compared` validation inputs, of `examples` in all. among: so many training inputs were looked at, of
    `of_all`. why: why it is not known; "" where it is.
    """

    campaign: str
    found: int = 0
    compared: int = 0
    examples: int | None = None
    among: int = 0
    of_all: int | None = None
    why: str = ""

    @property
    def words(self) -> str:
        """The count with what it rests on, for a person."""
        if self.why:
            return (
                f"whether validation inputs occur among those that {self.campaign} trained on is not known: {self.why}"
            )
        share = f" ({self.found / self.compared:.0%})" if self.found else ""
        told = f"{self.found:,} of {self.compared:,} validation inputs{share} occur among the training inputs of "
        looked = "" if self.among == self.of_all else f", of which {self.among:,} were looked at"
        return f"{told}{self.campaign}{looked}"


@dataclass(frozen=True, slots=True)
class StageLeaks(Conclusion):
    """What was found of the validation inputs of a stage among the training inputs of each one before it."""

    KIND: ClassVar[str] = "stage leaks"
    stages: tuple[FoundInputs, ...]


@dataclass(frozen=True, slots=True)
class SecondTry(Conclusion):
    """The FAILED trials of a study that were trained once more."""

    KIND: ClassVar[str] = "second_try"
    trials: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Launcher(Conclusion):
    """The command that launched the newest study of a campaign, and whether it was still at work when it last told.

    Workers that wait for more work read it: while a launcher is at work, more may come. worker: its process, by the
    name that its claims have.
    """

    KIND: ClassVar[str] = "launcher"
    ONLY_SAVES_TIME: ClassVar[bool] = True
    worker: str
    at_work: bool


CONCLUSIONS: Mapping[str, type[Conclusion]] = {
    one.KIND: one
    for one in (
        RegimeVerdict, StudyProfile, FusionChoices, BudgetRecord, SweepConclusion, FinalScore, Retention, Adoption,
        CurveStudies, FiniteValidation, Launcher, LoopPromises, SecondTry, StabilityStudies, StageLeaks, StageStart,
        StudyNumerics, TrainingInputs,
    )
}  # fmt: skip
