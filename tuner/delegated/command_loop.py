"""One trial that a program of somebody else's trains: it is started, read, stopped, and what it saves is kept."""

import json
import logging
import os
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tuner.delegated.command_lines import HeldReports, SaidLine, said_by
from tuner.delegated.command_process import OutputLog, ProgramEnd, RunningProgram
from tuner.errors import AttemptLost, Paused, WorkloadError
from tuner.records import COMMAND_MARK
from tuner.shown import one_line
from tuner.signals import SHUTDOWN, soon

POLL_SECONDS = 0.2
GRACE_SECONDS = 12.0  # [P] from SIGTERM to SIGKILL; all of a stop has 20
COMMIT_POLL_SECONDS = 1.0  # between two looks whether a commit is due while the program says nothing
GO_ON_LATER = 75  # the exit code of a program that gives way, EX_TEMPFAIL
LOOK_SECONDS = 60.0  # in a first look: for a program that has reported all and does not end

logger = logging.getLogger(__name__)


class ProgramFailed(RuntimeError):
    """The program ended with an exit code that says so."""


class SavedFiles:
    """Checkpoints that the program announced: linked or copied at once, because it may delete its own.

    folder: the {checkpoint} folder, which the program reads when it begins. What is kept lies beside it, by steps.
    """

    def __init__(self, folder: Path, work: Path, *, trying: bool) -> None:
        self.folder, self.work, self.trying = folder, work, trying
        self.saved = False  # whether the trial goes on from a checkpoint
        self.current = self.reached = 0  # the step that is saved; that of the checkpoint, or of the end
        self.held: dict[int, Mapping[str, float]] = {}  # reports between these two
        self.at: dict[int, Path] = {}  # by step
        self.places: dict[Path, int] = {}  # the step of each path that was announced
        self._told = False
        _emptied(folder)
        for left in folder.parent.glob(f"{folder.name}-*"):
            shutil.rmtree(left, ignore_errors=True)

    def announced(self, said: SaidLine, program: str) -> bool:
        """Keep what is announced; False where it is gone already, and is left out.

        Raises WorkloadError where there never was anything, and for a path that was announced before.
        """
        place = self.work / said.place
        if self.places.setdefault(place, said.step) != said.step:
            raise WorkloadError(
                f"{program} announces {said.place} for step {said.step}, as for step {self.places[place]} before: a "
                "checkpoint may be read after the program has gone on, so each has a path of its own, like "
                f"step-{said.step} in {{folder}}; old ones may be deleted"
            )
        kept = _emptied(self.folder.with_name(f"{self.folder.name}-{said.step}"))
        try:
            whole = _linked(place, kept)
        except FileNotFoundError:
            whole = False
        if whole:
            self.at[said.step] = kept
            return True
        shutil.rmtree(kept, ignore_errors=True)
        if not self.at:
            raise WorkloadError(
                f"{program} announces {said.place} as its checkpoint of step {said.step}, and there is no file in "
                f"{place}: announce it once it is whole, by a path that begins at {self.work} or at /"
            )
        if not self._told:
            self._told = True
            logger.warning(
                "%s deleted its checkpoint of step %d before it was kept, so that one is left out; let it keep the two "
                "newest ones", program, said.step,
            )  # fmt: skip
        return False

    def restore(self, trial: Any, program: str) -> bool:
        """Make what the trial goes on from the newest checkpoint, its reports included; True where the trial is over.

        Raises WorkloadError in a first look where the step at hand was not saved.
        """
        if trial.trying and trial.step and not self.saved:
            raise WorkloadError(
                f"{program} announced no checkpoint after {trial.step} updates: a trial that is killed goes on from "
                "its newest one, and from its first step where there is none"
            )
        self.reached = max(self.reached, trial.step)
        if self.saved:
            kept = _emptied(self.folder.with_name(f"{self.folder.name}-{self.reached}"))
            shutil.copytree(self.folder, kept, dirs_exist_ok=True)
            self.at[self.reached] = kept
        self.current = trial.step
        return bool(trial.stepped(trial.step)) or self.hand_over(trial, self.reached, self.held)

    def hand_over(self, trial: Any, step: int, held: Mapping[int, Mapping[str, float]]) -> bool:
        """Report what was held up to this step, of which a checkpoint is whole or the program has ended; True: over.

        What is saved after one of several reports is the checkpoint, with the reports that are still to be handed over:
        a trial that is stopped in between goes on with those.
        """
        self.reached, self.held = step, dict(held)
        for old in [one for one in self.at if one < step]:
            shutil.rmtree(self.at.pop(old), ignore_errors=True)
        for one in sorted(self.held):
            self.current = one
            trial.report(self.held.pop(one), step=one)
            if trial.stepped(one):
                return True
        if self.current < step:
            self.current = step
            return bool(trial.stepped(step))
        return False

    def save(self, folder: Path) -> None:
        """Write the state of the step at hand."""
        lacks = self.trying and self.reached != self.current
        kept = None if lacks else self.at.get(self.reached)
        if kept is not None:
            shutil.copytree(kept, folder, dirs_exist_ok=True)
        held = {str(step): values for step, values in self.held.items()}
        mark = {"step": self.reached, "saved": kept is not None, "held": {} if lacks else held}
        (folder / COMMAND_MARK).write_text(json.dumps(mark), encoding="utf-8")

    def load(self, folder: Path) -> None:
        """Put kept files where the program reads them."""
        shutil.copytree(folder, _emptied(self.folder), dirs_exist_ok=True)
        mark = json.loads((self.folder / COMMAND_MARK).read_text(encoding="utf-8"))
        (self.folder / COMMAND_MARK).unlink()
        self.saved, self.reached = bool(mark["saved"]), int(mark["step"])
        self.held = {int(step): dict(values) for step, values in mark["held"].items()}

    def forget(self) -> None:
        """Delete what was kept and announced below the trial's folder: it is in a checkpoint of the study by now."""
        mine = [place for place in self.places if place.resolve().is_relative_to(self.folder.parent)]
        for left in (self.folder, *self.at.values(), *mine):
            if left.is_dir():
                shutil.rmtree(left, ignore_errors=True)
            else:
                left.unlink(missing_ok=True)


def _emptied(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def _linked(place: Path, into: Path) -> bool:
    """Link the files of a folder, or one file, into another folder; they are copied where that is elsewhere."""
    files = [place] if place.is_file() else sorted(one for one in place.rglob("*") if one.is_file())
    for file in files:
        target = into / (file.name if file == place else file.relative_to(place))
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(file.resolve(), target)
        except FileNotFoundError:
            raise
        except OSError:
            shutil.copyfile(file, target)
    return bool(files)


class CommandRun:
    """A program that trains one trial: `trial` is the `LoopTrial`, `program` how messages name it."""

    def __init__(self, trial: Any, program: str, saved: SavedFiles, *, resumable: bool) -> None:
        self.trial, self.program, self.saved = trial, program, saved
        self.resumable = resumable
        setup = trial.behind().setup
        self.stop = setup.stop
        self.stall = setup.stall_seconds
        study = setup.study
        wanted = [study.objective.metric]
        if study.fitted_when is not None and study.kind == "sweep":
            wanted.append(study.fitted_when.metric)
        self.held = HeldReports(program, trial.evaluation_steps, trial.step, wanted)
        self.over = False
        self.ended_by_us = False  # though it had reported everything
        self.waiting: int | None = None  # the step of a checkpoint whose evaluation was not reported yet
        self.sign = self.looked = time.monotonic()

    def run(self, words: Sequence[str], environment: Mapping[str, str], metrics: Path | None) -> None:
        """Start the program, and take what it says, to its end or to a stop.

        Raises ProgramFailed, Infeasible, WorkloadError, AttemptLost and Paused, when nothing of the program runs any
        more.
        """
        log = OutputLog(self.trial.folder, stays=not self.trial.trying)
        process = RunningProgram(words, self.saved.work, environment, metrics, log)
        try:
            self._follow(process, always=metrics is not None)
        finally:
            process.close()
            log.close()
        if not self.over:
            self._finish(process.ended or ProgramEnd(), log)

    def _follow(self, process: RunningProgram, *, always: bool) -> None:
        """Read the program until it has ended, or had to be ended."""
        asked = 0.0  # when it was asked to end
        while process.ended is None:
            self._take(process.lines(POLL_SECONDS), process.log, always=always)
            now = time.monotonic()
            if not asked and (self._is_unfinished(now) or self.stop()):
                asked = now
                process.terminate()
            elif asked and now - asked > GRACE_SECONDS:
                return
            self._check_stalled(now, process.log)
            if not self.over and not asked and self.trial.step and now - self.looked > COMMIT_POLL_SECONDS:
                self.looked = now
                self.over = self.trial.stepped(self.trial.step)

    def _is_unfinished(self, now: float) -> bool:
        """Whether the trial is over and the program goes on."""
        if not self.over and not self.held.all_there:
            return False
        whole = self.trial.step >= self.held.last or not self.over
        limit = GRACE_SECONDS if self.over else min(self.stall, LOOK_SECONDS if self.trial.trying else self.stall)
        if whole and now - self.sign <= limit:
            return False
        if whole:
            logger.warning(
                "%s still ran %.0f s after its last report, of step %d, and was stopped: it has to end by itself",
                self.program, now - self.sign, self.held.newest,
            )  # fmt: skip
            self.ended_by_us = True
        return True

    def _check_stalled(self, now: float, log: OutputLog) -> None:
        if not self.over and not self.held.all_there and now - self.sign > self.stall:
            text = f"stalled: {self.program} reported nothing for {self.stall:g} s; {log.said}"
            raise WorkloadError(text) if self.trial.trying else AttemptLost(text)

    def _take(self, lines: Sequence[bytes], log: OutputLog, *, always: bool) -> None:
        for line in lines:
            said = said_by(line, self.program, always=always)
            if said is None:
                log.write(line)
            elif not self.over:
                self._heard(said)
                self.sign = time.monotonic()

    def _heard(self, said: SaidLine) -> None:
        if said.infeasible:
            self.trial.infeasible(one_line(said.infeasible))
        self.held.take(said)
        self.trial.alive(self.held.newest)
        if said.place and said.step >= self.trial.step:
            self._announced(said)
        diverged = self.held.diverged_at
        if diverged is not None:
            self._deliver(diverged)
        elif self.waiting is not None and self.held.deliverable(self.waiting):
            self._deliver(self.waiting)

    def _announced(self, said: SaidLine) -> None:
        if not self.resumable:
            raise WorkloadError(
                f"{self.program} announces a checkpoint, and its command has no {{checkpoint}}, so it could not go on "
                "from one: pass the folder, as in --resume {checkpoint}, or announce none"
            )
        if self.saved.announced(said, self.program):
            self.waiting = said.step

    def _deliver(self, step: int) -> None:
        """Hand over the reports up to a step, and say that the trial is there."""
        self.waiting = None
        self.over = self.saved.hand_over(self.trial, step, dict(self.held.until(step)))

    def _finish(self, ended: ProgramEnd, log: OutputLog) -> None:
        """The program has ended before its trial was over."""
        stopped = soon(self.stop) or SHUTDOWN.is_set_soon()
        if self.held.all_there and (self.ended_by_us or (ended.code == 0 and not ended.signal)):
            self._deliver(self.held.last)
        elif stopped:
            self.over = self.trial.stepped(self.trial.step)
        else:
            self._refuse(ended, log)

    def _refuse(self, ended: ProgramEnd, log: OutputLog) -> None:
        text = f"{self.program} {ended.words} at step {self.held.newest}; {log.said}"
        if ended.code == GO_ON_LATER:
            raise Paused(f"{text}; code {GO_ON_LATER} says go on later: run the same command again")
        if ended.is_lost and not self.trial.trying:
            raise AttemptLost(f"lost: {text}")
        if ended.missing or ended.code or ended.signal:
            raise ProgramFailed(text)
        missing = self.held.first_missing(self.held.last + 1)
        self.held.refuse_others(missing)
        line = json.dumps({"step": missing, self.held.wanted[0]: 0.3})
        raise WorkloadError(
            f"{self.program} ended with exit code 0 and reported nothing after {missing} updates, where an evaluation "
            f"is due: it has to train {self.held.last} updates ({{max_train_steps}}) and to report after each of "
            f"{{evaluation_steps}} with a line {line}; {log.said}"
        )


def environment_for(trial: Any, own: Mapping[str, str]) -> dict[str, str]:
    """The environment of the program: this one's, its device and threads, and what the study file gives."""
    found = {**os.environ}
    if sys.prefix != sys.base_prefix:  # programs of the environment that tuner runs in come first, as when activated
        found["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), found.get("PATH", os.defpath)])
    found |= {"PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": str(trial.behind().setup.threads)}
    found["CUDA_VISIBLE_DEVICES"] = _visible(trial.device, os.environ.get("CUDA_VISIBLE_DEVICES"))
    return found | dict(own)


def _visible(device: Any, inherited: str | None) -> str:
    """The GPUs that the program may see: the one of its trial, as the program's first."""
    if device.type != "cuda":
        return ""
    names = [name.strip() for name in inherited.split(",")] if inherited else []
    index = device.index or 0
    return names[index] if index < len(names) else str(index)
