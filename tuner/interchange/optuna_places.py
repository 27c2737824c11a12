"""Where an Optuna study is kept: a SQLite file, a journal file, or a database server; read, never written.

A SQLite file is read from a copy, and the copy is migrated to the newest schema. Optuna itself would migrate the file,
and then the older Optuna of its owner could not read it any more.
"""

import json
import logging
import re
import sqlite3
import warnings
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import BaseJournalBackend, JournalFileBackend
from optuna.trial import FrozenTrial

from tuner.errors import StorageError
from tuner.interchange.optuna_cells import damage_of_database
from tuner.interchange.optuna_rows import SCHEMA, trials_of_database
from tuner.security import without_secrets

MOST_NAMED = 20  # studies, in an error
FIRST_BYTES = 200  # of a file, by which its kind is told
LONGEST = 300  # characters of a message of Optuna
JOURNAL_SUFFIXES = (".log", ".journal", ".jsonl")  # of a new file that an export writes as a journal
_SQLITE, _SQLITE_HEAD = "sqlite:///", b"SQLite format 3\0"
_SQLITE_URL = re.compile(r"sqlite(?:\+\w+)?:///(?P<file>[^?]*)(?:\?.*)?")
_OPERATIONS = (
    "create_study", "delete_study", "set_study_user_attr", "set_study_system_attr", "create_trial", "set_trial_param",
    "set_trial_state_values", "set_trial_intermediate_value", "set_trial_user_attr", "set_trial_system_attr",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class OptunaPlace:
    """`told`: the place as the person wrote it, without a password; `file`: of SQLite or of a journal."""

    told: str
    url: str = ""
    file: Path | None = None
    journal: bool = False


@contextmanager
def quiet_optuna() -> Iterator[None]:
    """Silence Optuna's log and warnings about its own code: experimental constraints, old distributions."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            for kind in (ExperimentalWarning, FutureWarning, UserWarning):
                warnings.simplefilter("ignore", kind)
            yield
    finally:
        optuna.logging.set_verbosity(before)


def place_of(written: str) -> OptunaPlace:
    """What a path or URL stands for; a file is there and is one of Optuna's kinds. Raises StorageError."""
    told = without_secrets(written)
    path = _file_in(written)
    if path is None:
        return OptunaPlace(told, url=written)
    if not path.is_file():
        raise StorageError(_missing(path))
    try:
        with path.open("rb") as opened:
            head = opened.read(FIRST_BYTES)
    except OSError as error:
        raise StorageError(f"{path} cannot be read: {error.strerror}") from error
    if head.startswith(_SQLITE_HEAD):
        return OptunaPlace(told, file=path)
    if b'"op_code"' in head:
        return OptunaPlace(told, file=path, journal=True)
    what = "is empty" if not head else "is neither a SQLite database nor a journal of Optuna's JournalStorage"
    raise StorageError(f"{path} {what}; name the file or URL that was given to optuna.create_study(storage=...)")


@contextmanager
def opened_place(place: OptunaPlace) -> Iterator[BaseStorage]:
    """Optuna's storage, for reading. Raises StorageError for what is none, or is damaged."""
    if place.journal and place.file is not None:
        yield _journal(place.file)
    elif place.file is not None:
        with TemporaryDirectory(prefix="tuner-optuna-") as folder:
            storage = _copied(place.file, Path(folder) / "copy.db")
            try:
                yield storage
            finally:
                storage.remove_session()
                storage.engine.dispose()
    else:
        yield _server(place)


def writable_storage(written: str) -> BaseStorage:
    """The storage of a path or URL, for an export; a file that is not there is made. Raises StorageError."""
    path = _file_in(written)
    if path is None:
        return _server(OptunaPlace(without_secrets(written), url=written), create=True)
    there = path.is_file() and path.stat().st_size > 0
    if place_of(str(path)).journal if there else path.suffix in JOURNAL_SUFFIXES:
        return JournalStorage(JournalFileBackend(str(path)))
    return _server(OptunaPlace(str(path), url=f"{_SQLITE}{path}"), create=True)


def chosen_study(storage: BaseStorage, place: OptunaPlace, name: str | None) -> optuna.Study:
    """The study of that name, or the only one. Raises StorageError that lists what there is."""
    known = [one.study_name for one in storage.get_all_studies()]
    listed = ", ".join(repr(one) for one in known[:MOST_NAMED]) or "none"
    listed += f" and {len(known) - MOST_NAMED} more" if len(known) > MOST_NAMED else ""
    if name is None and len(known) != 1:
        many = f"{place.told} has {len(known)} Optuna studies" if known else f"{place.told} has no Optuna study"
        raise StorageError(f"{many}{f': {listed}; choose one with --study-name' if known else ''}")
    if name is not None and name not in known:
        raise StorageError(f"there is no Optuna study {name!r} in {place.told}; there are: {listed}")
    return optuna.load_study(study_name=name or known[0], storage=storage)


def trials_in(storage: BaseStorage, study: optuna.Study, place: OptunaPlace) -> list[FrozenTrial]:
    """All trials of a study, finished or not."""
    if place.file is None or not isinstance(storage, RDBStorage) or storage.get_current_version() != SCHEMA:
        return study.get_trials(deepcopy=False)
    with closing(sqlite3.connect(str(storage.engine.url.database))) as connection:
        return trials_of_database(connection, study.study_name)


def _file_in(written: str) -> Path | None:
    """The file of a path or an SQLite URL, with a driver (sqlite+pysqlite) or without; None for a server."""
    url = _SQLITE_URL.fullmatch(written)
    if url is not None:
        return Path(url["file"])
    return None if "://" in written else Path(written)


def _missing(path: Path) -> str:
    if path.is_dir():
        return f"{path} is a folder; name the file in it that Optuna wrote"
    folder = path.parent
    beside = [one.name for one in folder.iterdir() if one.is_file()] if folder.is_dir() else []
    near = get_close_matches(path.name, beside, n=1)
    guess = f"; did you mean {folder / near[0]}?" if near else ""
    there = "" if folder.is_dir() else f": there is no folder {folder}"
    return f"no Optuna database can be read: there is no file {path}{there}{guess}"


def _copied(file: Path, copy: Path) -> RDBStorage:
    """The copy in the newest schema, all of whose cells can be read."""
    try:
        with closing(_read_only(file)) as source, closing(sqlite3.connect(copy)) as target:
            source.backup(target)
            tables = {row[0] for row in target.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    except sqlite3.Error as error:
        raise StorageError(f"{file} cannot be read as a SQLite database: {error!s:.{LONGEST}}") from error
    if not {"studies", "trials", "version_info"} <= tables:
        raise StorageError(f"{file} is a SQLite database, but no Optuna database: it has no studies of Optuna")
    _refuse_damage(file, copy)
    url = f"{_SQLITE}{copy}"
    storage = _storage(url, file)
    if storage.get_current_version() == storage.get_head_version():
        return storage
    if storage.get_current_version() not in storage.get_all_versions():
        raise StorageError(f"{file} was written by a newer Optuna than {optuna.__version__}: pip install -U optuna")
    try:
        with _undisturbed_loggers():
            storage.upgrade()
    except Exception as error:
        raise StorageError(
            f"{file} was written by an older Optuna, and its copy cannot be brought to the schema of Optuna "
            f"{optuna.__version__} ({type(error).__name__}: {error!s:.{LONGEST}}); make a backup of the file, then try "
            f"`optuna storage upgrade --storage {_SQLITE}{file}`"
        ) from error
    _refuse_damage(file, copy)  # a cell that is valid in the old schema may be damaged in the new one
    return storage


def _storage(url: str, file: Path) -> RDBStorage:
    try:
        return RDBStorage(url, skip_compatibility_check=True, skip_table_creation=True)
    except Exception as error:
        raise StorageError(
            f"{file} cannot be read as an Optuna database: {type(error).__name__}: {error!s:.{LONGEST}}"
        ) from error


def _refuse_damage(file: Path, copy: Path) -> None:
    try:
        with closing(sqlite3.connect(copy)) as connection:
            found = damage_of_database(connection)
    except sqlite3.Error as error:
        raise StorageError(f"{file} cannot be read as an Optuna database: {error!s:.{LONGEST}}") from error
    if found:
        more = f" ({len(found) - 1} more cells are damaged)" if len(found) > 1 else ""
        raise StorageError(f"{file}: {found[0]}{more}; nothing was imported")


def _read_only(file: Path) -> sqlite3.Connection:
    """The connection to a file in a read-only folder: with a write-ahead log it opens as immutable only."""
    quoted = str(file.absolute()).replace("%", "%25").replace("?", "%3f").replace("#", "%23")
    connection = sqlite3.connect(f"file:{quoted}?mode=ro", uri=True)
    try:
        connection.execute("SELECT count(*) FROM sqlite_master")
    except sqlite3.OperationalError:
        connection.close()
        return sqlite3.connect(f"file:{quoted}?mode=ro&immutable=1", uri=True)
    return connection


@contextmanager
def _undisturbed_loggers() -> Iterator[None]:
    """Optuna's migrations set up logging again for the whole process."""
    root = logging.getLogger()
    known = {name: one for name, one in logging.Logger.manager.loggerDict.items() if isinstance(one, logging.Logger)}
    before = {name: (one.disabled, one.level) for name, one in known.items()}
    level, handlers, off = root.level, root.handlers[:], logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(off)
        root.setLevel(level)
        root.handlers[:] = handlers
        for name, (disabled, at) in before.items():
            known[name].disabled = disabled
            known[name].setLevel(at)


def _server(place: OptunaPlace, *, create: bool = False) -> BaseStorage:
    try:
        return optuna.storages.get_storage(RDBStorage(place.url, skip_table_creation=not create))
    except RuntimeError as error:
        raise StorageError(
            f"{place.told} is an Optuna database of another version: {str(error).strip():.{LONGEST}}; back it up, then "
            f"`optuna storage upgrade --storage URL` brings it to this one"
        ) from error
    except Exception as error:
        raise StorageError(
            f"no Optuna database can be read at {place.told}: {type(error).__name__}: "
            f"{without_secrets(str(error)):.{LONGEST}}; an address is a path, or a URL like sqlite:///optuna.db "
            "or postgresql://user@host/name"
        ) from error


class _ReadOnlyJournal(BaseJournalBackend):
    """The lines of a journal file; `line` and `operation` are those that were read last."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.line = 0
        self.operation: dict[str, Any] = {}

    def read_logs(self, log_number_from: int) -> Iterable[dict[str, Any]]:
        with self.file.open("rb") as lines:
            for number, line in enumerate(lines):
                if not line.endswith(b"\n"):
                    return  # it is being written now
                self.line, self.operation = number + 1, {}
                read = json.loads(line)
                if not isinstance(read, dict):
                    raise ValueError("a line of a journal is a JSON object")
                self.operation = read
                if number >= log_number_from:
                    yield read

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        raise StorageError(f"{self.file} is only read")

    def where(self) -> str:
        """The line, what it does, and of which trial."""
        code, trial = self.operation.get("op_code"), self.operation.get("trial_id")
        named = f" ({_OPERATIONS[code]})" if isinstance(code, int) and 0 <= code < len(_OPERATIONS) else ""
        return f"{self.file}: {'' if trial is None else f'trial {trial}, '}line {self.line}{named}"


def _journal(file: Path) -> BaseStorage:
    backend = _ReadOnlyJournal(file)
    try:
        return JournalStorage(backend)
    except (OSError, MemoryError):
        raise
    except Exception as error:
        raise StorageError(
            f"{backend.where()} cannot be read: {type(error).__name__}: {error!s:.{LONGEST}}; nothing was imported"
        ) from error
