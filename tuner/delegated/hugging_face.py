"""The door for the Trainer of Hugging Face: what a study file says of it. Nothing of transformers is imported here."""

from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from typing import Any, TypedDict, Unpack

from tuner.delegated.makers import parameters, takes_point
from tuner.design.objective import FitCriterion, Objective
from tuner.design.own_loop import OwnLoop
from tuner.errors import DeclarationError, InputError
from tuner.shown import quoted

_LOOP = "tuner.delegated.hugging_face_loop"
_PACKAGES = ("transformers", "accelerate")

_STEPS = "the study decides how many steps a trial trains: Round(..., max_train_steps=...), or a sweep"
_RATE = "the study decides it: learning_rate=log_uniform(...) in the space"
_SCHEDULE = (
    "the rates follow the schedule of the study: Campaign(schedule=..., warmup=...); to keep that of the arguments, "
    'TrainerWorkload(schedule="arguments")'
)
_EVALUATION = "the study decides when to evaluate: Campaign(evaluations=...)"
_SAVING = "the study keeps states and the best weights itself, and a stopped trial goes on from them"
_SELECTION = 'the study picks the best weights: TrainerWorkload(select_by=minimize("validation/loss"))'
_SEED = "every trial has seeds of its own"
_RECORDS = "the study records and shows what is measured: tuner report"
_HUB = "weights are exported first, and then pushed by you: tuner best --export"
_PROCESSES = "a trial of this kind trains in one process on one device; start several by tuner.Command"
_QUIET = "the program shows the progress of all trials itself"

# Words of TrainingArguments that the study decides, each with the way out.
DECIDED: Mapping[str, str] = {
    "max_steps": _STEPS,
    "num_train_epochs": _STEPS,
    "learning_rate": _RATE,
    "lr_scheduler_type": _SCHEDULE,
    "lr_scheduler_kwargs": _SCHEDULE,
    "warmup_steps": _SCHEDULE,
    "warmup_ratio": _SCHEDULE,
    **dict.fromkeys(("eval_strategy", "eval_steps", "eval_delay", "eval_on_start"), _EVALUATION),
    **dict.fromkeys(
        (
            "save_strategy", "save_steps", "save_total_limit", "save_only_model", "save_on_each_node", "output_dir",
            "resume_from_checkpoint", "ignore_data_skip", "enable_jit_checkpoint", "overwrite_output_dir",
        ),
        _SAVING,
    ),
    **dict.fromkeys(("load_best_model_at_end", "metric_for_best_model", "greater_is_better"), _SELECTION),
    "seed": _SEED,
    "data_seed": _SEED,
    **dict.fromkeys(
        ("report_to", "run_name", "project", "trackio_space_id", "trackio_bucket_id", "trackio_static_space_id"),
        _RECORDS,
    ),
    "disable_tqdm": _QUIET,
    **dict.fromkeys(("use_cpu", "no_cuda"), "the command says where to train: --device cpu"),
    "auto_find_batch_size": "a trial with another batch size is another trial; search per_device_train_batch_size",
    "local_rank": _PROCESSES,
    **dict.fromkeys(("fsdp", "fsdp_config", "deepspeed", "parallelism_config"), _PROCESSES),
}  # fmt: skip
_DECIDED_PREFIXES = {"ddp_": _PROCESSES, "push_to_hub": _HUB, "hub_": _HUB}
OF_A_SCHEDULE = frozenset({"lr_scheduler_type", "lr_scheduler_kwargs", "warmup_steps", "warmup_ratio", "learning_rate"})


def check_words(words: object, keeps_schedule: bool) -> None:
    """Raise DeclarationError for what is no dict of training arguments, or where the study decides one of them."""
    if not isinstance(words, Mapping) or not all(isinstance(name, str) for name in words):
        shown = quoted(words) if isinstance(words, str | Mapping) else type(words).__name__
        raise DeclarationError(
            "TrainerWorkload(args=...) takes the words of TrainingArguments as a dict, "
            f"args=dict(per_device_train_batch_size=16), or a function of the point that returns one, got {shown}"
        )
    refused: dict[str, list[str]] = {}  # by the way out, so that a script is mended at once
    for name in words:
        way_out = DECIDED.get(name) or next((w for p, w in _DECIDED_PREFIXES.items() if name.startswith(p)), None)
        if way_out and not (keeps_schedule and name in OF_A_SCHEDULE):
            refused.setdefault(way_out, []).append(repr(name))
    if refused:
        told = "; ".join(f"{', '.join(names)}: {way_out}" for way_out, names in refused.items())
        raise DeclarationError(f"args of TrainerWorkload name {told}")


class TrainerParts(TypedDict, total=False):
    """What else a Trainer is made of; each but the classes may be a function of the point that returns it."""

    data_collator: Any
    compute_metrics: Any
    processing_class: Any
    callbacks: Sequence[Any] | Callable[..., Sequence[Any]]
    compute_loss_func: Any
    preprocess_logits_for_metrics: Any
    trainer_class: type
    arguments_class: type
    schedule: str
    select_by: Objective | None
    fitted_when: FitCriterion | None
    batch_size: int | None


# Of these a function is the thing itself, and not what returns it.
FUNCTIONS = frozenset({"data_collator", "compute_metrics", "compute_loss_func", "preprocess_logits_for_metrics"})


class TrainerWorkload(OwnLoop):
    """The Trainer of `transformers` as the loop of a study.

    model_init: a function that returns a fresh model; it may take the point, `lambda point: ...`.
    args: words of TrainingArguments, a dict or a function of the point that returns one. Those that the study decides
        (steps, rates, seeds, when to evaluate and to save) are refused by name. Hyperparameters of the space that are
        named like a training argument, `weight_decay=log_uniform(...)`, are set in it.
    train_dataset, eval_dataset: what the Trainer takes, or functions that return it: `lambda: load()` is called once,
        `lambda point: ...` for each trial. One eval_dataset is the split "validation"; a dict
        {"validation": ..., "training": ...} names both, as a sweep needs to see whether the training set is fitted.
    data_collator, compute_metrics, processing_class, callbacks, compute_loss_func, preprocess_logits_for_metrics: of
        the Trainer. Callbacks: a list of classes or of objects, which are copied for each trial, or a function that
        returns it.
    trainer_class, arguments_class: subclasses of Trainer and TrainingArguments to use instead.
    schedule: "study": rates follow the schedule of the study; "arguments": that of the arguments stays.
    select_by, fitted_when, batch_size: see `OwnLoop`.

    `eval_loss` is recorded as validation/loss, `eval_accuracy` of compute_metrics as validation/accuracy. A function
    may also have a parameter `regularization_off`: true in a sweep, which trains without dropout. Raises
    DeclarationError for wrong arguments, InputError without transformers.
    """

    door = "trainer"

    def __init__(
        self,
        *,
        model_init: Callable[..., Any],
        args: Mapping[str, Any] | Callable[..., Mapping[str, Any]] | None = None,
        train_dataset: Any = None,
        eval_dataset: Any = None,
        **parts: Unpack[TrainerParts],
    ) -> None:
        self._check(model_init, train_dataset, eval_dataset, parts)
        super().__init__(
            select_by=parts.pop("select_by", None),
            fitted_when=parts.pop("fitted_when", None),
            batch_size=parts.pop("batch_size", None),
        )
        self.schedule = parts.pop("schedule", "study")
        self.model_init = model_init
        self.args = {} if args is None else args
        self.train_dataset = train_dataset
        self.eval_dataset = eval_dataset
        self.parts: dict[str, Any] = dict(parts)
        if not callable(self.args):
            check_words(self.args, self.schedule == "arguments")

    def _check(self, model_init: object, train_dataset: object, eval_dataset: object, parts: Mapping[str, Any]) -> None:
        known = TrainerParts.__annotations__
        for name in parts:
            if name not in known:
                near = get_close_matches(name, [*known, "model_init", "args", "train_dataset", "eval_dataset"], n=1)
                near = ["processing_class"] if name == "tokenizer" else near  # as Trainer itself calls it now
                hint = f"; did you mean {near[0]!r}?" if near else ""
                raise DeclarationError(f"TrainerWorkload takes no {name!r}{hint}")
        _check_functions(parts)
        if not callable(model_init) or hasattr(model_init, "state_dict"):
            raise DeclarationError(
                "TrainerWorkload(model_init=...) takes a function that returns a fresh model, since every trial begins "
                f"with one: lambda point: ..., got {type(model_init).__name__}"
            )
        for name, value in (("train_dataset", train_dataset), ("eval_dataset", eval_dataset)):
            if value is None:
                raise DeclarationError(f"TrainerWorkload needs {name}=..., a dataset or a function that returns one")
        schedule = parts.get("schedule", "study")
        if schedule not in ("study", "arguments"):
            raise DeclarationError(
                f'TrainerWorkload(schedule=...) is "study" or "arguments", got {schedule!r}; the form of the schedule '
                "is said in the campaign: Campaign(schedule=...)"
            )

    @property
    def follows_schedule(self) -> bool | None:
        """False where the schedule of the arguments is kept; otherwise seen when a trial is tried."""
        return False if self.schedule == "arguments" else None

    def words(self) -> Mapping[str, str]:
        """The optimizer, batch size and precision, as far as the arguments of all trials say them."""
        if callable(self.args):
            return {"optimizer": "as the training arguments say"}
        said = self.args
        precision = next((name for name in ("bf16", "fp16") if said.get(name)), "")
        return {
            "optimizer": f"{said.get('optim', 'AdamW')} of the Trainer",
            **({"precision": precision} if precision else {}),
        }

    def train(self, trial: Any) -> None:
        """Train one trial by the Trainer. Raises InputError where transformers is missing, WorkloadError."""
        _loop().train(self, trial)

    def save_pretrained(self, point: Mapping[str, Any], weights: str | Path, folder: str | Path) -> None:
        """Write a folder that `from_pretrained` reads: the model of a point with the weights of `tuner best --export`.

        Raises InputError where the weights are not those of that model, or transformers is missing.
        """
        _loop().save_pretrained(self, point, Path(weights), Path(folder))


def _check_functions(parts: Mapping[str, Any]) -> None:
    for name in sorted(FUNCTIONS & parts.keys()):
        if parts[name] is not None and not callable(parts[name]):
            raise DeclarationError(f"TrainerWorkload({name}=...) takes a function, got {parts[name]!r:.80}")


def _loop() -> Any:
    try:
        return import_module(_LOOP)
    except ModuleNotFoundError as error:
        if error.name not in _PACKAGES:
            raise
        raise InputError(
            f"TrainerWorkload needs the package {error.name}, which is not installed: pip install 'tuner[transformers]'"
        ) from None


def called(function: Callable[..., Any], point: Mapping[str, Any], off: Callable[[], bool]) -> Any:
    """Call a function of the user's with what it takes: the point first, and `regularization_off` by name.

    off: is asked only where the function takes it.
    """
    names = parameters(function)
    extra = {"regularization_off": off()} if "regularization_off" in names else {}
    return function(*[point][: takes_point(function, ("regularization_off",))], **extra)
