"""Identifies a workload, part by part, in the process that trains it (see `design.identity`)."""

import logging
import time
from abc import ABCMeta
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from types import FunctionType
from typing import Any, cast

import torch

from tuner.delegated.looks import look_for_identity
from tuner.delegated.setup import LoopSetup
from tuner.design.identity import Identity, InitialWeights, changed_losses, changed_weights, changes, identity_from
from tuner.design.own_loop import OwnLoop
from tuner.design.stages import START_FROM
from tuner.design.study import Study, records_of_others
from tuner.design.study_file import seen_while_loaded
from tuner.design.workload import Trainable, Workload, own_kinds
from tuner.errors import StudyChanged
from tuner.records import Numerics
from tuner.shown import counted
from tuner.sources.bytecode import definitions_of_class, file_of_class
from tuner.sources.places import kind_of
from tuner.sources.reached import Reached, same_code
from tuner.sources.running import Seen, watched
from tuner.storage.studies import StudyRow
from tuner.training.arguments import arguments_of
from tuner.training.data_digests import check_repeatable_data, data_digests
from tuner.training.first_look import check_repeatable_weights, first_look, points_of_architectures
from tuner.training.inherited import StartWeights
from tuner.training.setup import Data, StudySetup, TrainingSetup
from tuner.training.workload_digests import plain_settings, weaker_fingerprint

_log = logging.getLogger(__name__)
SAID_FROM = 2.0  # seconds; the cost of longer work is reported
LONGEST_CALL = 30.0  # [P] seconds: a data() that takes longer is not called a second time
LARGEST_DATA = 2**31  # [P] bytes: nor one that gives more


@dataclass(frozen=True, slots=True)
class MoreCode:
    """A file of the user's code that only the models of one study reach, as it was when it ran."""

    label: str
    file: str
    definitions: dict[str, str]


class Identifier:
    """Reads a workload's code and arguments when it is made, before any method of the workload runs.

    study_file: where it is declared; the file of its class by default. Raises WorkloadError for an argument without a
    digest, DeclarationError for code that cannot be read.
    """

    def __init__(self, workload: Trainable, study_file: Path | None = None) -> None:
        self.workload = workload
        root = study_file or next(map(file_of_class, own_kinds(workload)), None)
        self._arguments = arguments_of(workload, root.resolve().parent if root else None)
        self._plain = plain_settings(workload)
        self._reached = Reached(root, _names_of_classes(type(workload)))
        for module in self._arguments.modules:
            self._reached.add_module(module)
        if root is not None:
            self._reached.add_seen(seen_while_loaded(root))
        self._reached.refuse_stale_modules()
        for kind in type(workload).__mro__:
            self._reached.from_text |= definitions_of_class(kind)
        self._data: Data | None = None
        self._data_seen = Seen()
        self._seconds = 0.0
        self._of_studies: dict[str, list[MoreCode]] = {}
        self._tried: dict[str, Seen] = {}  # by points: what ran there

    def data(self, device: torch.device) -> Data:
        """The data that `data()` returns; the code that runs for it belongs to the workload."""
        started = time.perf_counter()
        with watched(self._data_seen):
            found = Data.of(cast(Workload, self.workload), device)
        self._seconds = time.perf_counter() - started
        self._reached.add_seen(self._data_seen)
        self._data = found
        return found

    @cached_property
    def whole(self) -> Identity:
        """The identity that all studies of the campaign share; needs `data` before."""
        started = time.perf_counter()
        digests = {} if self._data is None else data_digests(self._data)
        _tell_cost("the digests of the data", time.perf_counter() - started)
        return Identity(self._reached.code, self._arguments.values, digests, self._reached.packages)

    @property
    def packages(self) -> Mapping[str, str]:
        """Installed distributions that the user's code imports, with their versions."""
        return self._reached.packages

    @property
    def files(self) -> Mapping[str, Path]:
        """The files of own code that were reached until now, by their labels ("pkg/net.py")."""
        more = {one.label: Path(one.file) for known in self._of_studies.values() for one in known}
        return {label: source.file for label, source in self._reached.sources.items()} | more

    def changed_file(self) -> str:
        """The label of a file whose code is not any more what this process has read; "" where there is none."""
        return self._reached.changed_since_read()

    def fingerprint(self, study: str, inherited: StartWeights | None = None) -> str:
        """The digest of the workload as a study uses it, with the code that ran only for its models, and its start."""
        return self._with(self._of_studies.get(study, []), (), inherited).fingerprint

    def weaker_fingerprint(self) -> str:
        """The fingerprint as tuner 0.1 made it."""
        return "" if self._data is None else weaker_fingerprint(cast(Workload, self.workload), self._data, self._plain)

    def of_study(self, setup: StudySetup, points: Sequence[Mapping[str, Any]] | None) -> Identity:
        """The whole identity of a study. points: where its initial weights are compared; by default they are chosen."""
        started = time.perf_counter()
        weights, seen = self._looked(setup, points)
        self._of_studies[setup.study.name] = more = self._more(seen, setup.study)
        if len(self._of_studies) == 1:
            self._refuse_other_files()
        what = "the loop" if isinstance(self.workload, OwnLoop) else counted(len(weights), "model")
        _tell_cost(f"a first look at {what} of {setup.study.name}", time.perf_counter() - started)
        return self._with(more, weights, setup.inherited)

    def _looked(
        self, setup: StudySetup, points: Sequence[Mapping[str, Any]] | None
    ) -> tuple[Sequence[InitialWeights], Seen]:
        """The initial weights at some points, and the code that ran for them."""
        torchs, workload = cast(TrainingSetup, setup), cast(Workload, self.workload)
        chosen = points_of_architectures(setup.study, workload) if points is None else points
        place = repr((list(chosen), setup.study.augment))
        tried = place in self._tried
        seen = self._tried.setdefault(place, Seen())
        return first_look(torchs, chosen, seen, tried=tried), seen

    def check_repeatable(self, setup: StudySetup, looked_at: Identity) -> None:
        """Raise WorkloadError when data() or model() return something else at a second call."""
        if self._data is None:
            return
        num_bytes = sum(split.num_bytes or 0 for split in (self._data.training, self._data.validation))
        name = type(self.workload).__name__
        if self._seconds <= LONGEST_CALL and num_bytes <= LARGEST_DATA:
            check_repeatable_data(cast(Workload, self.workload), self._data, looked_at.data)
        else:
            _log.warning(
                "%s.data() took %.0f s for %.1f GB and is not called a second time, so it is not known whether it "
                "gives the same data again", name, self._seconds, num_bytes / 1e9,
            )  # fmt: skip
        check_repeatable_weights(cast(TrainingSetup, setup), looked_at.weights)

    def more_code(self, study: str) -> list[MoreCode]:
        """The code that ran only for the models of a study."""
        return self._of_studies.get(study, [])

    def expect(self, study: str, more: Sequence[MoreCode]) -> None:
        """Use the code that another process saw. Raises StudyChanged where a file has changed since."""
        for one in more:
            if one.file and not same_code(one.label, one.file, one.definitions):
                raise StudyChanged(f"{one.label} changed since the launch began; undo that, and launch again")
        self._of_studies[study] = list(more)

    def _more(self, seen: Seen, study: Study) -> list[MoreCode]:
        """The code of models and of the study's plugins, beyond that of the workload without models."""
        reached = self._reached.apart()
        reached.add_seen(seen)
        for record, source in records_of_others(study):
            given = getattr(record, "made_of", None)  # a class or a function, of which the record is tuner's
            if source.file and given is not None and kind_of(Path(source.file)) == "installed":
                continue  # the version of its package counts, as that of every package that the study file imports
            if source.file:
                reached.add_plugin(source.module, Path(source.file))
            elif isinstance(given, type):
                reached.from_text |= definitions_of_class(given)
            else:
                values = [given] if given is not None else [getattr(record, one.name) for one in fields(record)]
                reached.add_functions([value for value in values if _is_users(value)])
        known = self._reached.code
        return [
            MoreCode(label, str(reached.sources[label].file) if label in reached.sources else "", definitions)
            for label, definitions in reached.code.items()
            if known.get(label) != definitions
        ]

    def _with(self, more: Sequence[MoreCode], weights: Any, inherited: StartWeights | None) -> Identity:
        whole = self.whole
        code = {**whole.code, **{one.label: one.definitions for one in more}}
        arguments = dict(whole.arguments) | ({} if inherited is None else {START_FROM: inherited.identity})
        return Identity(code, arguments, whole.data, whole.packages, tuple(weights))

    def _refuse_other_files(self) -> None:
        """Raise StudyChanged for a file that was saved while this process loaded the study: what ran is not known.

        Checked once: a file that is edited while its study trains changes nothing in this process.
        """
        label = self.changed_file()
        if label:
            raise StudyChanged(f"{label} was changed while the study was loaded; launch again")


class LoopIdentifier(Identifier):
    """Identifies a workload that trains itself: by its code and arguments, and by what its first steps show.

    Its data are its own: what they give is seen in the curve of the first look, where the loop gives it twice.
    """

    def __init__(self, workload: Trainable, study_file: Path | None = None) -> None:
        super().__init__(workload, study_file)
        for file in cast(OwnLoop, workload).code_files(study_file.resolve().parent if study_file else Path.cwd()):
            self._reached.add_program(file)

    def _looked(
        self, setup: StudySetup, points: Sequence[Mapping[str, Any]] | None
    ) -> tuple[Sequence[InitialWeights], Seen]:
        loops = cast(LoopSetup, setup)
        found = look_for_identity(loops, points or ())
        if found is None:
            return [], Seen()
        point, look = found
        known = loops.looks.measured.get(loops.study.augment)
        if known is not None and not known.promises.deterministic:
            return [InitialWeights(dict(point), "")], look.seen
        under = loops.numerics.text
        return [InitialWeights(dict(point), look.weights, under, look.curve_digest, under)], look.seen


def changed_since(
    row: StudyRow, identifier: Identifier, setup: StudySetup, *, test: bool = False, beginning: bool = False
) -> list[str]:
    """The differences from the start of a study, in words.

    test: also of the test split, where that is known. beginning: also of initial weights and the first loss.
    """
    if row.identity is None:
        same = row.fingerprint in (identifier.weaker_fingerprint(), identifier.fingerprint(row.study.name))
        return [] if same else ["the study file, or the data"]
    kept = identity_from(row.identity)
    today = identifier.of_study(setup, [one.point for one in kept.weights])
    other_test = test and "test" in kept.data and kept.data["test"] != today.data.get("test")
    found = changes(kept, today) + ["test data changed"] * other_test
    if beginning and not found:
        found = ["initial weights changed"] * bool(changed_weights(kept, today, Numerics.alike))
        found = found or ["the loss of a first batch changed"] * bool(changed_losses(kept, today, Numerics.alike))
    return found


def _names_of_classes(workload: type) -> frozenset[str] | None:
    """The names of a workload and its bases; None where one of these is told of other classes of the file."""
    users = [kind for kind in workload.__mro__ if kind.__module__.partition(".")[0] not in ("tuner", "builtins")]
    told = any("__init_subclass__" in vars(kind) or type(kind) not in (type, ABCMeta) for kind in users)
    return None if told else frozenset(kind.__name__ for kind in workload.__mro__)


def _is_users(value: object) -> bool:
    return isinstance(value, FunctionType) and not value.__module__.startswith("tuner.")


def _tell_cost(what: str, seconds: float) -> None:
    if seconds > SAID_FROM:
        _log.warning("%s took %.1f s", what, seconds)
