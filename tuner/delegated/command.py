"""A program of any kind as the loop of a study: a command with placeholders, which writes its metrics as JSON lines."""

import importlib
import json
import math
import shlex
import shutil
import string
import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tuner.design.names import Name
from tuner.design.objective import FitCriterion, Objective
from tuner.design.own_loop import OwnLoop
from tuner.errors import DeclarationError, InputError, WorkloadError
from tuner.shown import quoted
from tuner.system import refuse_programs

_OF_LENGTH = ("max_train_steps", "evaluate_every", "evaluation_steps", "rates")  # differ with the length of a trial
OURS = {
    "max_train_steps": "the updates of the trial",
    "evaluate_every": "updates between two evaluations",
    "evaluation_steps": "the updates after which to evaluate, as 100,200,300",
    "seed": "of initial weights and dropout",
    "data_seed": "of the order of the data",
    "checkpoint": "a folder: the checkpoint to go on from, or empty",
    "folder": "a folder of the trial's own, to write to",
    "metrics": "the file to write the lines to, in place of the standard output",
    "rates": "a JSON file: the learning rate of each update",
    "warmup_steps": "of the study's schedule",
    "regularization_off": "1 where a sweep trains without regularization, else 0",
    "device": "cpu or cuda; only the GPU of the trial can be seen",
    "number": "of the trial",
    "start": "the file of the weights to start from (safetensors), or empty: see docs/how-to/stages.md",
}


class Command(OwnLoop):
    """A program that trains: `Command("train --lr {learning_rate} --steps {max_train_steps}", select_by=...)`.

    It is started once for each trial, without a shell, in the folder of the study file, and writes lines like
    `{"step": 100, "validation/loss": 0.31}` to its standard output, one after each update of {evaluation_steps}.
    `step` counts the updates made. Everything else that it prints is kept in `output.log` in the trial's folder.

    command: one text, or a list of words. {name} stands for a hyperparameter or for one of `OURS`, {{ for a brace.
    env: environment variables for the program, besides those of this one.
    constant_rate: the program trains at {learning_rate} from the first update to the last, and so does the study; with
        {rates} it reads the rates of the study. With neither, its schedule is its own, and the study has none.
    batch_size, select_by, fitted_when: as in `OwnLoop`.

    With {checkpoint} the program may announce whole checkpoints, {"step": 100, "checkpoint": "path"}: a trial that was
    killed goes on from the newest one. Without, it begins again. See docs/how-to/command.md.

    Raises DeclarationError for a command that cannot be.
    """

    door = "command"

    def __init__(
        self,
        command: str | Sequence[str],
        *,
        select_by: Objective,
        fitted_when: FitCriterion | None = None,
        batch_size: int | None = None,
        env: Mapping[str, str] | None = None,
        constant_rate: bool = False,
    ) -> None:
        super().__init__(select_by=select_by, fitted_when=fitted_when, batch_size=batch_size)
        self.command = _words_of(command)
        if env is not None and not isinstance(env, Mapping):
            raise DeclarationError(f"env of a Command is a dict of texts, got {quoted(env)}")
        self.env = dict(env or {})
        self.constant_rate = constant_rate
        for name, value in self.env.items():
            if not isinstance(name, str) or not isinstance(value, str) or "=" in name or "\0" in name + value:
                raise DeclarationError(f"env of a Command is a dict of texts, got {quoted({name: value})}")
        if "max_train_steps" not in self.used:
            raise DeclarationError(
                f"the command {quoted(shlex.join(self.command))} has no {{max_train_steps}}: trials of a study train "
                "for one number of updates, which the program has to be given, as in --steps {max_train_steps}"
            )
        if not isinstance(constant_rate, bool):
            raise DeclarationError(f"constant_rate of a Command is True or False, got {quoted(constant_rate)}")
        if constant_rate and "rates" in self.used:
            raise DeclarationError("a Command follows {rates}, or has a constant_rate; leave one of them out")
        if constant_rate and "learning_rate" not in {Name.of(name).short for name in self.used}:
            raise DeclarationError(
                f"the command {quoted(shlex.join(self.command))} has no {{learning_rate}}, and constant_rate=True "
                "means that it trains at that rate: pass it, as in --lr {learning_rate}"
            )

    @property
    def used(self) -> set[str]:
        """The names of all placeholders."""
        return {name for word in self.command for name in _placeholders(word)}

    @property
    def follows_schedule(self) -> bool:
        """True with {rates}, and at a constant rate, because the study's schedule is constant then; else False."""
        return "rates" in self.used or self.constant_rate

    def words(self) -> Mapping[str, str]:
        """For the page of a study."""
        return {"optimizer": "that of the program"}

    def check_start(self, names: Collection[str]) -> None:
        """Raise DeclarationError for a command that is not given the weights to start from."""
        if not takes_start(self, names):
            raise DeclarationError(
                f"the campaign starts from given weights, and the command {quoted(shlex.join(self.command))} has no "
                "{start}, so that its program would train from its own: pass the file, as in --init {start}; it is "
                "empty in a round that starts from scratch"
            )

    def code_files(self, folder: Path) -> Sequence[Path]:
        """The files beside the study that the command names, and for Python what these import from there."""
        sources = importlib.import_module("tuner.delegated.command_sources")
        named = [word for word in self.command if not _placeholders(word)]
        return list(sources.files_of_command(named, folder))

    def train(self, trial: Any) -> None:
        """Run the program for one trial."""
        refuse_programs()
        study_file = trial.behind().setup.study_file
        folder = study_file.resolve().parent if study_file else Path.cwd()
        place = trial.folder.resolve()
        start = str(trial.start_file or "") if takes_start(self, set(trial.point)) else ""
        if trial.regularization_off and "regularization_off" not in self.used:
            raise WorkloadError(
                f"the command {quoted(shlex.join(self.command))} has no {{regularization_off}}, and a sweep trains "
                "without augmentation and regularization (A22, A23): pass it, as in "
                "--no-regularization {regularization_off}, which is 1 then"
            )
        loop = importlib.import_module("tuner.delegated.command_loop")
        saved = loop.SavedFiles(place / "checkpoint", folder, trying=trial.trying)
        trial.keep_files(saved.save, saved.load)
        if saved.restore(trial, _named(self.command)):
            saved.forget()
            return
        given = Placeholders(self.used, trial, place, start)
        environment = loop.environment_for(trial, self.env)
        words = [_filled(word, given.text_of) for word in self.command]
        program = _found(words[0], folder, environment)
        run = loop.CommandRun(trial, _named(words), saved, resumable="checkpoint" in self.used)
        try:
            run.run([program, *words[1:]], environment, given.metrics)
        finally:
            saved.forget()


def takes_start(workload: Command, names: Collection[str]) -> bool:
    """Whether {start} stands for the weights to start from, and not for a hyperparameter of that name."""
    return "start" in workload.used and "start" not in {Name.of(name).short for name in names}


@dataclass(frozen=True, slots=True)
class Placeholders:
    """What the placeholders stand for in one trial; files are written when they are first named.

    used: the names in the command. place: the trial's folder, absolute. start: the file of the weights to start from.
    """

    used: set[str]
    trial: Any
    place: Path
    start: str = ""

    @property
    def metrics(self) -> Path | None:
        """The file that the program writes its lines to, if it is told one; an older one is removed."""
        return self.place / "metrics.jsonl" if "metrics" in self.used else None

    def text_of(self, name: str) -> str:
        """The text of a placeholder. Raises WorkloadError for a name or a value that has none."""
        trial = self.trial
        if name in OURS and (name != "start" or name not in trial.point):
            return self._of_ours(name)
        if name not in trial.point and name not in trial.behind().trial.point:
            known = sorted({*trial.point, *OURS})
            raise WorkloadError(
                f"the command has {{{name}}}, which is no hyperparameter and nothing of the trial; there are "
                f"{', '.join(known)}; a brace of the program's own is written {{{{"
            )
        value = trial.point[name] if name in trial.point else trial.behind().trial.point[name]
        return _text(name, value)

    def _of_ours(self, name: str) -> str:
        trial, due = self.trial, self.trial.due_behind()
        if name in _OF_LENGTH:
            trial.read.add(f"{{{name}}}")
        if name == "checkpoint":
            return str(self.place / "checkpoint")
        if name == "folder":
            return str(self.place)
        if name == "metrics":
            path = self.place / "metrics.jsonl"
            path.unlink(missing_ok=True)
            return str(path)
        if name == "rates":
            return self._rates(due[-1])
        if name == "start":
            return self.start
        if name == "evaluate_every":
            return str(self._every(due))
        warmup = trial.behind().trial.point.whole("warmup_steps", trial.behind().setup.study.warmup_steps)
        texts = {
            "max_train_steps": due[-1],
            "evaluation_steps": ",".join(map(str, due)),
            "seed": trial.seed,
            "data_seed": trial.data_seed,
            "warmup_steps": min(warmup, due[-1]),
            "regularization_off": int(trial.regularization_off),
            "device": trial.device.type,
            "number": trial.number,
        }
        return str(texts[name])

    def _rates(self, steps: int) -> str:
        path = self.place / "rates.json"
        path.write_text(json.dumps([self.trial.rate(step) for step in range(steps)]), encoding="utf-8")
        return str(path)

    def _every(self, due: tuple[int, ...]) -> int:
        """The distance of evaluations. Raises WorkloadError where there is not one distance for all."""
        budget = self.trial.behind().setup.study.budget
        if budget.early and "evaluation_steps" not in self.used:
            raise WorkloadError(
                "the study lengthens a shorter one, so its evaluations are not at one distance, and the command has "
                "{evaluate_every} alone: give the program {evaluation_steps}, a list like 100,200,400"
            )
        return math.gcd(*due) if self.trial.trying else int(budget.evaluate_every)


def _words_of(command: object) -> list[str]:
    """The words of a command, placeholders in them. Raises DeclarationError."""
    if isinstance(command, str):
        try:
            words = shlex.split(command)
        except ValueError as error:
            raise DeclarationError(f"the command {quoted(command)} cannot be split into words: {error}") from None
    elif isinstance(command, Sequence) and not isinstance(command, bytes):
        words = [str(word) if isinstance(word, Path) else word for word in command]
    else:
        raise DeclarationError(f"a Command takes a text or a list of words, got {quoted(command)}")
    if not words or not all(isinstance(word, str) and "\0" not in word for word in words) or not words[0]:
        raise DeclarationError(f"a Command begins with a program, and all its words are texts, got {quoted(command)}")
    for word in words:
        _placeholders(word)
    return words


def _placeholders(word: str) -> list[str]:
    """The names in braces. Raises DeclarationError for braces that are no placeholder."""
    try:
        parts = list(string.Formatter().parse(word))
    except ValueError as error:
        raise DeclarationError(
            f"the word {quoted(word)} of the command has a brace alone ({error}); write {{name}}, or {{{{ for a brace"
        ) from None
    names = [name for _, name, _, _ in parts if name is not None]
    if any(form or conversion for _, _, form, conversion in parts) or not all(names):
        raise DeclarationError(
            f"the word {quoted(word)} of the command has a placeholder that is no plain {{name}}: values are written "
            "so that no digit is lost; write {{ and }} for braces of the program's own"
        )
    return names


def _filled(word: str, text_of: Any) -> str:
    parts = string.Formatter().parse(word)
    return "".join(text + (text_of(name) if name else "") for text, name, _, _ in parts)


def _text(name: str, value: object) -> str:
    """A value as the program reads it. Raises WorkloadError."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, str) and "\0" not in value:
        return value
    raise WorkloadError(f"{{{name}}} stands for {quoted(value)}, which cannot be a word of a command")


def _found(name: str, folder: Path, environment: Mapping[str, str]) -> str:
    """The absolute path of a program. Raises InputError where there is none."""
    if name in ("python", "python3"):
        return sys.executable
    found = shutil.which(str(folder / name) if "/" in name else name, path=environment.get("PATH"))
    if found is None:
        near = folder / name
        hint = f"; {near} is there: write ./{name}, and let it be executable" if near.is_file() else ""
        raise InputError(f"there is no program {quoted(name)}, neither on PATH nor in {folder}{hint}")
    return str(Path(found).absolute())


def _named(words: Sequence[str]) -> str:
    """The program as messages name it: "python train.py"."""
    told = [words[0], *(word for word in words[1:2] if not word.startswith("-"))]
    return quoted(" ".join(told))[1:-1]
