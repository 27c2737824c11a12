"""What the words of a study file and of the command line mean where the training is not ours.

One record for each word: what it means to an own loop, Lightning, the Hugging Face Trainer, a command, and trials that
are asked for and told of; or where to say it instead. docs/reference/delegated.md has them as a table.
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from types import CodeType
from typing import Any

from tuner.budget.families import constant
from tuner.design.names import OF_THE_SCHEDULE
from tuner.design.other_words import instead_of
from tuner.design.own_loop import OwnLoop
from tuner.design.workload import Trainable, Workload, misspelt, own_kinds, words_of
from tuner.errors import DeclarationError, InputError

# Doors to the program for training that is not ours, as `OwnLoop.door` names them, and in words.
DOORS = {
    "loop": "own loop",
    "lightning": "Lightning",
    "trainer": "Trainer",
    "command": "command",
    "asking": "ask and tell",
}
Texts = str | Mapping[str, str]
_SCHEDULE = {
    "loop": "honoured: `trial.rate(step)` or `trial.scheduler(optimizer)`",
    "lightning": "honoured; refused with `schedule='module'`, the module's own schedulers",
    "trainer": "honoured; refused with `schedule='arguments'`, that of the arguments",
    "command": "honoured with `{rates}`; else refused: the program has its own",
    "asking": "honoured: `trial.rate(step)`",
}
_CONSTANT = "honoured with `{rates}`; `constant()` with `constant_rate=True`; else refused: the program has its own"
_WARMUP_OF_POINT = _SCHEDULE | {
    "lightning": "honoured; yours with `schedule='module'`",
    "trainer": "honoured; yours with `schedule='arguments'`, set in the arguments",
    "command": "honoured with `{rates}`; refused with `constant_rate=True`; else yours: `{warmup_steps}`",
}
_NO_LOADER = {
    "loop": "refused: `DataLoader(num_workers=4)`",
    "lightning": "refused: `DataLoader(num_workers=4)` in the datamodule",
    "trainer": 'refused: `args={"dataloader_num_workers": 4}`',
    "command": "refused: in the command",
    "asking": "refused: in your own code",
}
_POINT = {
    "loop": "yours: `trial.point[...]`",
    "lightning": "yours: the point that `module` gets",
    "trainer": "yours: set where it names a training argument, and in the point that `model_init` gets",
    "command": "yours: `{name}` in the command",
    "asking": "yours: `trial.point[...]`",
}
_FUNCTIONS = {
    "loop": "yours: in `train`",
    "lightning": "yours: in `training_step`",
    "trainer": "yours: in the data collator",
    "command": "yours: in the program, where it is Python",
    "asking": "yours: in your own code",
}
_NO_COMMAND = "refused: no command trains it"


@dataclass(frozen=True, slots=True)
class DelegatedWord:
    """A word of the program, and what becomes of it where the training is not ours.

    place: where it stands: an argument of "Campaign" or of a "round", an "attribute" or a "method" of the class, a
    hyperparameter of the "space", a "function" for models and batches, or an "option" of a command. doors: what it
    means to each door (of `DOORS`), or to all; it begins with "honoured", "yours" (nothing of the program reads it), or
    "refused" and where to say it instead.
    """

    name: str
    place: str
    doors: Texts

    def at(self, door: str) -> str:
        """What it means at a door."""
        return self.doors if isinstance(self.doors, str) else self.doors[door]

    def instead(self, door: str) -> str:
        """Where to say it at a door that refuses it; empty where it is not refused."""
        text = self.at(door)
        return text.removeprefix("refused: ") if text.startswith("refused") else ""


def _in_own_code(loop: str, lightning: str, trainer: str) -> dict[str, str]:
    """A word that is refused everywhere, as it is said in each place instead."""
    texts = {"loop": loop, "lightning": lightning, "trainer": trainer}
    texts |= {"command": "in the command", "asking": "in your own code"}
    return {door: f"refused: {text}" for door, text in texts.items()}


_HOOKS = (
    "data",
    "model",
    "loss",
    "metrics",
    "augment",
    "collate",
    "lengths",
    "split_metrics",
    "parameter_groups",
    "weight",
    "shard",
)
_YOURS: Texts = "yours: nothing but your own code calls it"
_WORDS: tuple[tuple[str, dict[str, Texts]], ...] = (
    ("Campaign", {
        "optimizer": _in_own_code(
            "in `train`: `torch.optim.AdamW(...)`", "`configure_optimizers` of the module", "`args={\"optim\": ...}`"
        ),
        "schedule": _SCHEDULE | {"command": _CONSTANT},
        "warmup": _SCHEDULE,
        "warmup_steps": _SCHEDULE,
        "precision": _in_own_code(
            "in `train`: `torch.autocast(...)`", "`trainer={\"precision\": \"bf16-mixed\"}`", "`args={\"bf16\": True}`"
        ),
        "ema_steps": _in_own_code(
            "in `train`: `torch.optim.swa_utils.AveragedModel`, kept by `trial.keep`",
            "`trainer={\"callbacks\": [EMAWeightAveraging(...)]}`", "a `trainer_class` that evaluates and saves them",
        ),
        "shard": _in_own_code(
            "in `train`: `torch.distributed.fsdp.fully_shard`", "`trainer={\"strategy\": \"fsdp\"}`",
            "`args={\"fsdp\": \"full_shard\"}`",
        ),
        "sweep": {
            "loop": "honoured; needs the schedule, and `trial.regularization_off`",
            "lightning": "honoured; needs the schedule, and `regularization_off`",
            "trainer": "honoured; needs the schedule, and `regularization_off`",
            "command": "honoured; needs `{rates}` or `constant_rate=True`, and `{regularization_off}`",
            "asking": "honoured: `tuner.asking(campaign, sweep=True)`; needs the schedule and `regularization_off`",
        },
        "evaluations": "honoured",
        "evaluate_every": "honoured",
        "keep_best": "honoured",
        "production_steps": "honoured",
        "regime": "honoured",
        "other_numerics": dict.fromkeys(("loop", "lightning", "trainer", "command"), "honoured") | {
            "asking": "refused: keep your script to machines of one kind"
        },
        "seed": "honoured",
        "start_from": {
            "loop": "honoured: `trial.carry_into(model)` before `trial.keep`, or `trial.start_weights`",
            "lightning": "honoured: carried into what `module` makes",
            "trainer": "honoured: carried into what `model_init` makes",
            "command": "honoured with `{start}`, the path of a safetensors file; else refused: the program has to be "
            "given the weights",
            "asking": "honoured: `trial.carry_into(model)`, `trial.start_weights` or `trial.write_start(folder)`",
        },
    }),
    ("round", {
        "start": "honoured: `start=\"scratch\"` trains without `start_from`; the loop is the same",
        "total": "honoured",
        "patience_steps": "refused: leave it out; trials train all their steps, and the best weights of each are kept",
    }),
    ("function", {
        "with_lora": _FUNCTIONS | {"lightning": "yours: in `module`", "trainer": "yours: in `model_init`"},
        "shuffled": _FUNCTIONS,
        "dropped": _FUNCTIONS,
    }),
    ("attribute", {
        "select_by": "honoured",
        "fitted_when": "honoured",
        "batch_size": "honoured: for lengths in epochs and for pages; it changes no batch",
        "num_examples": "honoured: for lengths in epochs and for pages",
        "data_workers": _NO_LOADER,
        "evaluation_batch_size": _in_own_code(
            "the batch size of your own loader", "the batch size of `val_dataloader`",
            "`args={\"per_device_eval_batch_size\": 64}`",
        ),
        "training_evaluation_examples": _in_own_code(
            "report `training/...` of as many examples as you like", "`self.log(\"training/...\")` in the module",
            "what `compute_metrics` returns",
        ),
        "not_averaged": _in_own_code(
            "report the metric of the whole split", "`self.log` of the whole split", "`compute_metrics`"
        ),
        "split_metrics_device": _in_own_code("in `train`", "in the module", "in `compute_metrics`"),
        "slices": _in_own_code(
            "in `train`: cut each batch yourself", "`trainer={\"accumulate_grad_batches\": 4}`",
            "`args={\"gradient_accumulation_steps\": 4}`",
        ),
        "micro_batch_size": _in_own_code(
            "in `train`: add up gradients", "`trainer={\"accumulate_grad_batches\": 4}`",
            "`args={\"gradient_accumulation_steps\": 4}`",
        ),
        "no_decay": _in_own_code(
            "parameter groups of your own optimizer", "parameter groups in `configure_optimizers`",
            "the Trainer leaves out biases and norms by itself",
        ),
    }),
    ("method", dict.fromkeys(_HOOKS, _YOURS)),
    ("space", {
        "learning_rate": "honoured: the base rate of the schedule; yours where the schedule is",
        "warmup_steps": _WARMUP_OF_POINT,
        "decay_fraction": _SCHEDULE,
        "optimizer": _POINT,
        "weight_decay": _POINT,
        "clip_norm": _POINT,
        "batch_size": _POINT,
        "ema_steps": _POINT,
    }),
    ("option", {
        "--device": {
            "loop": "honoured: `trial.device`", "lightning": "honoured", "trainer": "honoured",
            "command": "honoured: `{device}`", "asking": _NO_COMMAND,
        },
        "--threads": dict.fromkeys(("loop", "lightning", "trainer", "command"), "honoured") | {"asking": _NO_COMMAND},
        "--workers": dict.fromkeys(("loop", "lightning", "trainer", "command"), "honoured") | {"asking": _NO_COMMAND},
        **{
            name: dict.fromkeys(("loop", "lightning", "trainer", "command"), "honoured") | {"asking": _NO_COMMAND}
            for name in ("--engine", "--cpus", "--gpus")
        },
        "--stall-timeout": {
            **dict.fromkeys(("loop", "lightning", "trainer", "command"), "honoured: from one sign of life to the next"),
            "asking": _NO_COMMAND,
        },
        "--max-seconds": {
            **dict.fromkeys(("loop", "lightning", "trainer", "command"), "honoured: stopped as by a signal"),
            "asking": _NO_COMMAND,
        },
        "--keep-checkpoints": "honoured",
        "--allow-changed-code": "honoured",
        "--allow-inexact": "honoured",
        "--gang": {
            **dict.fromkeys(("lightning", "trainer"), "refused: `--workers` trains several trials at a time"),
            "loop": "refused: in `train`: start the processes of a trial yourself",
            "command": "refused: start the processes of a trial in the command",
            "asking": _NO_COMMAND,
        },
        "--shard": {
            **dict.fromkeys(("loop", "command"), "refused: cut the model into shards in your own code"),
            "lightning": "refused: `trainer={\"strategy\": \"fsdp\"}`",
            "trainer": "refused: `args={\"fsdp\": \"full_shard\"}`",
            "asking": _NO_COMMAND,
        },
        "--fuse": "refused: a number; train several at a time by --workers. `auto` and `off` train one by one",
        "--profile": "refused: `fast`; say in your own code how exact its numbers are",
    }),
)  # fmt: skip
WORDS = tuple(DelegatedWord(name, place, doors) for place, named in _WORDS for name, doors in named.items())


_OF_OTHERS = {
    "params": "the point is trial.point",
    "config": "the point is trial.point",
    "should_prune": "no trial is stopped early, because trials are compared at the same number of steps (A11)",
    "log": "metrics are reported: {report}",
    "log_metrics": "metrics are reported: {report}",
    "set_user_attr": "only metrics are recorded, {report}; print or log what else you want to know",
    "save_checkpoint": "{keep}",
    "get_checkpoint": "{keep}",
    "epochs": "a trial has a number of updates, trial.max_train_steps (A11)",
    "num_epochs": "a trial has a number of updates, trial.max_train_steps (A11)",
    "max_epochs": "a trial has a number of updates, trial.max_train_steps (A11)",
}


def no_such_word(name: str, report: str, keep: str) -> str:
    """That a trial has nothing of this name; with ours, where it is a word of Optuna's, Ray's or W&B's.

    report, keep: how this trial takes metrics and weights.
    """
    if name.startswith("suggest_"):
        hint = "the SearchSpace of the campaign declares ranges; read trial.point['learning_rate']"
    else:
        hint = _OF_OTHERS.get(name, "").format(report=report, keep=keep)
    return f"a trial has no {name!r}{': ' if hint else ''}{hint}"


def door_of(workload: OwnLoop) -> str:
    """By which door a workload comes: what its class says; "asking" for one that trains nothing."""
    return workload.door if type(workload).train is not OwnLoop.train else "asking"


def meant_as(workload: Trainable, hook: str) -> str:
    """A name that a class declares in place of a missing attribute or method, `def trian` say; "" without one."""
    own = {name: callable(value) for kind in own_kinds(workload) for name, value in vars(kind).items()}
    method = callable(getattr(OwnLoop, hook, None))
    alike = [name for name, called in own.items() if called is method and not hasattr(OwnLoop, name)]
    return next(iter(get_close_matches(hook, alike, n=1, cutoff=0.8)), "") if hook not in own else ""


def check_attributes(workload: OwnLoop) -> None:
    """Raise DeclarationError for an attribute of a `Workload` that a class declares and its own code never reads."""
    door, named = door_of(workload), type(workload).__name__
    declared, read = _declared(workload), _read(workload)
    for word in WORDS:
        if word.place == "attribute" and word.instead(door) and word.name in declared - read:
            raise DeclarationError(
                f"{named}.{word.name} = {getattr(workload, word.name)!r} would change nothing, because "
                f"{_who(workload)} trains, and reads no such attribute; instead, {_plain(word.instead(door))}; give it "
                "another name if it is your own"
            )


def ignored_words(workload: OwnLoop) -> list[str]:
    """Sentences about what a class declares and nothing reads: methods of a `Workload`, and names that are misspelt."""
    named, declared, read = type(workload).__name__, _declared(workload), _read(workload)
    hooks = [word.name for word in WORDS if word.place == "method" and word.name in declared - read]
    told = [
        f"nothing calls {named}.{hook}, which is a method of a Workload: {_who(workload)} trains; call it there, or "
        "leave it out"
        for hook in hooks
    ]
    return told + [
        f"nothing reads {named}.{name}; did you mean {meant}? Rename it if it is your own"
        for name, meant in misspelt(workload, OwnLoop).items()
    ]


def misplaced(workload: Workload) -> dict[str, str]:
    """Attributes of a class that neither the program nor its own code reads, and what to write for each.

    They are words of other tools, like gradient_accumulation_steps, and of other places, like precision.
    """
    ours = _read(workload) | set(words_of(Workload)[0])
    names = [name for kind in own_kinds(workload) for name, value in vars(kind).items() if not callable(value)]
    return {name: written for name in names if name not in ours and (written := instead_of(name))}


def check_campaign(workload: OwnLoop, given: Mapping[str, Any], searched: Collection[str]) -> None:
    """Raise DeclarationError for words of a campaign that have no meaning here.

    given: those that are not defaults, of its rounds too. searched: the names of the search spaces.
    """
    if workload.constant_rate:
        _check_constant(workload, given, searched)
    if "start_from" in given:
        workload.check_start(searched)
    door, named = door_of(workload), type(workload).__name__
    unscheduled = workload.follows_schedule is False
    for name in given:
        known = [word for word in WORDS if word.name == name and word.place in ("Campaign", "round")]
        instead = next((word.instead(door) for word in known), "")
        if instead:
            raise DeclarationError(
                f"{name} = {given[name]!r} would change nothing, because {_who(workload)} trains; instead, "
                f"{_plain(instead)}"
            )
        if unscheduled and name in ("schedule", "warmup", "warmup_steps", "sweep", "transfer"):
            why = (
                "a sweep trains at constant rates; declare production_steps, or max_train_steps on the first round"
                if name == "sweep"
                else "leave it out, or have it follow the study's schedule"
            )
            raise DeclarationError(f"{name} has no meaning, because {named} trains by a schedule of its own: {why}")


def _check_constant(workload: OwnLoop, given: Mapping[str, Any], searched: Collection[str]) -> None:
    varied = [name for name in ("warmup", *OF_THE_SCHEDULE) if name in given or name in searched]
    varied += ["schedule"] * (given.get("schedule", constant()) != constant())
    if varied:
        raise DeclarationError(
            f"{varied[0]} has no meaning, because {type(workload).__name__}(constant_rate=True) trains at one rate "
            "from the first update to the last: leave it out, or have the program read the study's rates from {rates}"
        )


def check_machine(workload: OwnLoop, fuse: object, profile: str, gang: int = 1, shard: str = "") -> None:
    """Raise InputError for options that have no meaning to a training that is not ours."""
    if shard:
        raise InputError(
            f"--shard {shard} cuts a model into parts for several processes, and {_who(workload)} makes its own model: "
            "leave it out, and cut it there"
        )
    if gang > 1:
        raise InputError(
            f"--gang {gang} shares the slices of each batch among {gang} processes, and {_who(workload)} makes its own "
            "batches and updates: leave it out; --workers trains several trials at a time"
        )
    if isinstance(fuse, int):
        raise InputError(
            f"--fuse {fuse} trains trials as one stacked model, and {_who(workload)} trains each by itself: leave it "
            "out; --workers trains several at a time"
        )
    if profile == "fast":
        raise InputError(
            f"--profile fast is about trials that train as one stacked model, and {_who(workload)} trains each by "
            "itself: leave it out, and say in your own code how exact its numbers are"
        )


def _who(workload: OwnLoop) -> str:
    return "your own code" if door_of(workload) == "asking" else f"{type(workload).__name__}.train"


def _plain(text: str) -> str:
    """A text of the table without its marks for code."""
    return text.replace("`", "")


def _declared(workload: OwnLoop) -> set[str]:
    """The names of a workload's own classes that are those of a `Workload` and not of an `OwnLoop`."""
    names = {name for kind in own_kinds(workload) for name in vars(kind)}
    return {name for name in names if hasattr(Workload, name) and not hasattr(OwnLoop, name)}


def _read(workload: Trainable) -> set[str]:
    """All names that the code of a workload's own classes reads: what they declare and use is theirs."""
    codes = [
        code
        for kind in own_kinds(workload)
        for value in vars(kind).values()
        if isinstance(code := getattr(getattr(value, "__func__", value), "__code__", None), CodeType)
    ]
    return {name for code in codes for name in _names_in(code)}


def _names_in(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for inner in code.co_consts:
        if isinstance(inner, CodeType):
            yield from _names_in(inner)
