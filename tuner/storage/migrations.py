"""Versions of the tables: created at the newest, brought forward one version and one transaction at a time.

To change a table: change it in `schema`, and append the function that does the same to a filled database.
"""

import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sqlalchemy import Column, Connection, func, insert, inspect, select, text, update
from sqlalchemy.schema import CreateColumn

from tuner.errors import NoLedger, StorageError
from tuner.shown import quoted
from tuner.storage.backups import copy_sqlite
from tuner.storage.dialects import DatabaseTime, lock_schema
from tuner.storage.engine import Database
from tuner.storage.schema import checkpoint, metadata, schema_version, storage, study, trial

Migration = Callable[[Connection], None]
FIRST = 1


def add_prefixes(connection: Connection) -> None:
    """Version 2: checkpoints from which other trials may start, and how many steps a trial inherited."""
    for name in ("pins", "inherited_steps", "inherited_from"):
        _add_column(connection, trial.c[name])
    for name in ("prefix_base", "prefix_path", "prefix_numerics"):
        _add_column(connection, checkpoint.c[name])
    (index,) = (one for one in checkpoint.indexes if one.name == "checkpoint_by_prefix")
    index.create(connection)


def add_identities(connection: Connection) -> None:
    """Version 3: what the storage is and what a study was made of; how far a trial ever came."""
    storage.create(connection)
    insert_identity(connection)
    _add_column(connection, study.c.identity)
    _add_column(connection, trial.c.farthest)
    connection.execute(update(trial).values(farthest=trial.c.step))
    # Every claim was counted until now, also of a trial that got on each time: those in the midst count from here on.
    in_work = (trial.c.state.in_(("waiting", "running")), trial.c.step > 0, trial.c.attempt > 1)
    connection.execute(update(trial).where(*in_work).values(attempt=1))


def add_parameter_groups(connection: Connection) -> None:
    """Version 4: the groups of a trial's parameters."""
    _add_column(connection, trial.c.parameter_groups)


def add_base_files(connection: Connection) -> None:
    """Version 5: checkpoints may leave out what is frozen."""
    _add_column(connection, checkpoint.c.base_id)


def add_trained_seconds(connection: Connection) -> None:
    """Version 6: for how long each trial was trained."""
    _add_column(connection, trial.c.trained_seconds)


def insert_identity(connection: Connection) -> None:
    """Give a database that has none its own random identity."""
    connection.execute(insert(storage).values(id=1, identity=secrets.token_hex(16), created=DatabaseTime()))


def _add_column(connection: Connection, column: Column[Any]) -> None:
    definition = CreateColumn(column).compile(dialect=connection.dialect)
    connection.execute(text(f"ALTER TABLE {column.table.name} ADD COLUMN {definition}"))


# The first leads from version 1 to 2.
MIGRATIONS: tuple[Migration, ...] = (
    add_prefixes,
    add_identities,
    add_parameter_groups,
    add_base_files,
    add_trained_seconds,
)


def newest() -> int:
    """The version this program writes."""
    return FIRST + len(MIGRATIONS)


def create_or_migrate(database: Database, *, create: bool) -> None:
    """Bring the tables to the newest version. Raises StorageError for a newer or a foreign database."""

    def found_or_created(connection: Connection) -> int:
        lock_schema(connection)
        version = _version(connection, database)
        if version is not None:
            return version
        if not create:
            raise NoLedger(
                f"{database.safe_url} has no records of tuner yet; `tuner run` or `tuner launch` makes them, "
                "--storage or TUNER_STORAGE names another"
            )
        metadata.create_all(connection)
        insert_identity(connection)
        _stamp(connection, newest())
        return newest()

    _migrate(database, database.write(found_or_created))


def _version(connection: Connection, database: Database) -> int | None:
    """The version of the tables; None where there are none."""
    tables = set(inspect(connection).get_table_names())
    if "schema_version" in tables:
        version = connection.scalar(select(func.max(schema_version.c.version)))
        if isinstance(version, int) and version >= FIRST:
            return version
        if version is not None:
            raise StorageError(
                f"{database.safe_url} has a version that is no number: {quoted(version)}; restore a backup"
            )
    foreign = tables if database.file else tables & set(metadata.tables)
    if foreign:
        raise StorageError(
            f"{database.safe_url} holds the tables of something else ({', '.join(sorted(foreign)[:5])}) and no Ledger; "
            "give the Ledger a database of its own with --storage"
        )
    return None


def _migrate(database: Database, version: int) -> None:
    if version > newest():
        raise StorageError(
            f"{database.safe_url} has schema version {version}, and this tuner knows versions up to {newest()}: "
            "a newer tuner wrote it; update with `pip install -U tuner`, or give another --storage"
        )
    if version < newest() and database.file is not None:
        _back_up(database.file, version)
    for target in range(version + 1, newest() + 1):
        with database.writing() as connection:
            lock_schema(connection)
            if _version(connection, database) == target - 1:
                MIGRATIONS[target - FIRST - 1](connection)
                _stamp(connection, target)


def _stamp(connection: Connection, version: int) -> None:
    connection.execute(insert(schema_version).values(version=version, applied=DatabaseTime()))


def _back_up(file: Path, version: int) -> None:
    copy_sqlite(file, file.with_name(f"{file.name}.version-{version}"))
