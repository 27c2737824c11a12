"""A job in another process: what that process loads, what it trains, and whether it has the same workload.

Everything that crosses is JSON, never a pickle. A backend of other processes or machines starts these with a `Setup`,
sends a `StudyTask` for each job, and lets `InProcess` train the job that `job_of` makes of it there.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from importlib import import_module
from operator import attrgetter
from pathlib import Path
from typing import Any

from tuner.design.identity import Identity, changes, identity_from
from tuner.design.study_file import load_campaign
from tuner.errors import InputError, StudyChanged
from tuner.execution.backend import Job
from tuner.execution.identifying import MoreCode
from tuner.execution.loaded_workload import LoadedWorkload
from tuner.execution.machine import Machine, machine_from
from tuner.records.promises import measured_from
from tuner.storage.store import Ledger
from tuner.training.engine import EngineMaker
from tuner.training.inherited import inherited_from


@dataclass(frozen=True, slots=True)
class Setup:
    """What a process loads. The URL may hold a password, so a setup is never put on a command line.

    campaign: which one of the study file. engine: how trials are trained, as "module:attribute"; the module may be the
    study file or lie beside it. inherited: the weights of an earlier stage that models start from. relay: the folder of
    the socket by which the process that starts this one lends it a connection to the server of the URL. spot: where it
    stands in its gang (`training.gang.Spot`, as JSON); None where it trains trials alone.
    """

    study_file: Path
    url: str
    machine: Machine
    engine: str
    campaign: str = ""
    inherited: dict[str, Any] | None = None
    relay: str = ""
    spot: dict[str, Any] | None = None

    def as_json(self) -> dict[str, Any]:
        machine = self.machine.as_json()
        return {
            "study_file": str(self.study_file),
            "url": self.url,
            "machine": machine,
            "engine": self.engine,
            "campaign": self.campaign,
            "inherited": self.inherited,
            "relay": self.relay,
            "spot": self.spot,
        }

    def load(self) -> LoadedWorkload:
        """The workload of the study file, on the machine, with its engine. Raises InputError where there is none."""
        named = f"{self.study_file}:{self.campaign}" if self.campaign else self.study_file
        _, campaign = load_campaign(named)
        inherited = None if self.inherited is None else inherited_from(self.inherited)
        loaded = LoadedWorkload(campaign.workload, self.machine, self.study_file, engine_named(self.engine))
        loaded.campaign, loaded.inherited = self.campaign, inherited
        return loaded


def setup_of(loaded: LoadedWorkload, url: str, machine: Machine) -> Setup:
    """What another process loads to have this workload. Raises InputError where it could not find all of it."""
    if loaded.study_file is None:
        raise InputError("other processes load a workload from its study file, and this one has none")
    inherited = None if loaded.inherited is None else loaded.inherited.to_data()
    engine = name_of_engine(loaded.engine)
    return Setup(loaded.study_file.resolve(), url, machine, engine, loaded.campaign, inherited)


def setup_from(data: Mapping[str, Any]) -> Setup:
    """The value that `Setup.as_json` wrote."""
    machine = machine_from(data["machine"])
    loads = (data["engine"], data["campaign"], data["inherited"], data.get("relay", ""), data.get("spot"))
    return Setup(Path(data["study_file"]), data["url"], machine, *loads)


def name_of_engine(engine: EngineMaker) -> str:
    """The name by which another process finds an engine. Raises InputError for one that has none, as a lambda."""
    module, attribute = getattr(engine, "__module__", ""), getattr(engine, "__qualname__", "<nameless>")
    name = f"{module}:{attribute}"
    if module in ("", "__main__") or "<" in attribute or engine_named(name) is not engine:
        raise InputError(f"other processes find an engine by its name in a module, and {engine!r} has none there")
    return name


def engine_named(name: str) -> EngineMaker:
    """The engine that is called so: "module:attribute". Raises InputError where nothing is."""
    module, _, attribute = name.partition(":")
    try:
        found: EngineMaker = attrgetter(attribute)(import_module(module))
    except (ImportError, AttributeError) as error:
        raise InputError(f"the engine {name} cannot be loaded here: {error}") from error
    return found


@dataclass(frozen=True, slots=True)
class StudyTask:
    """Train what is left of a study, of a workload with this identity.

    created: when the study began, as the launcher read it. more_code: what only its models reach. measured: what was
    measured of a loop of one's own; None of other workloads.
    """

    campaign: str
    study: str
    created: float
    identity: dict[str, object]
    more_code: list[dict[str, Any]]
    measured: dict[str, Any] | None = None

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def task_of(job: Job) -> StudyTask:
    """A job as a task for another process."""
    loaded, study = job.workload, job.row.study.name
    more_code = [asdict(one) for one in loaded.identifier.more_code(study)]
    measured = loaded.measured(job.row.study)
    told = None if measured is None else measured.to_data()
    return StudyTask(job.row.campaign, study, job.row.created, loaded.identity.as_json(), more_code, told)


def job_of(task: StudyTask, ledger: Ledger, loaded: LoadedWorkload) -> Job:
    """A task as a job of this process. Raises StudyChanged where its workload is not the one that was launched."""
    expect(task, loaded)
    row = replace(ledger.study(task.campaign, task.study), created=task.created)  # a claim compares it with the Ledger
    if task.measured is not None:
        loaded.expect(row.study, measured_from(task.measured), told=True)
    return Job(ledger, row, loaded)


def expect(task: StudyTask, loaded: LoadedWorkload) -> None:
    """Take over what the launcher knows of a study's code. Raises StudyChanged where this workload is another one."""
    _check(loaded.identity, identity_from(task.identity), str(loaded.study_file))
    loaded.identifier.expect(task.study, [MoreCode(**one) for one in task.more_code])


def _check(mine: Identity, launchers: Identity, study_file: str) -> None:
    """Raise StudyChanged where the workload of this process is not the one that was launched."""
    different = changes(launchers, mine)
    if not different:
        return
    if all(words.endswith(" data changed") for words in different):
        raise StudyChanged(
            f"data() of {study_file} gives other data in each process ({'; '.join(different)}): seed what it draws "
            "from, and sort what has no order of its own; then launch again"
        )
    raise StudyChanged(
        f"{study_file} is not what was launched ({'; '.join(different)}): where a file was edited in the meantime, "
        "undo that, and launch again; a value that is drawn, or made of the time or of an address, differs in each "
        "process"
    )
