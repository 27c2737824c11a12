"""What a database is: its own random identity, whether it is a copy, and on which machine it lies.

A checkpoint folder names the storage that owns it by this identity (`ownership`).
"""

import secrets
import socket
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Connection, insert, select, text, update

from tuner.errors import StorageError
from tuner.security import plain_name
from tuner.storage.dialects import DatabaseTime, is_postgresql
from tuner.storage.schema import campaign, storage, study, trial
from tuner.storage.stored_values import refuse_strange


@dataclass(frozen=True, slots=True)
class StorageIdentity:
    """The one row of `storage`. copy_of: the identity of the original, while this is a copy that was not adopted.

    checkpoints: the default checkpoint folder, relative to the folder of the SQLite file; None: not chosen yet.
    generation: how many commands wrote to a checkpoint folder; of an older copy it is smaller.
    """

    identity: str
    copy_of: str | None
    checkpoints: str | None
    generation: int


@dataclass(frozen=True, slots=True)
class StorageSite:
    """Where a database lies. address: its file or its URL, without the password.

    key: what stays when the address changes, and differs between two copies: the inode of an SQLite file, the server's
    own number and that of the database in PostgreSQL; "" where the server does not tell.
    """

    address: str
    host: str
    key: str

    @property
    def server(self) -> str:
        """The number of the PostgreSQL server; "" for a file, and where it is not known."""
        return self.key.rpartition(":")[0]

    def same(self, other: "StorageSite") -> bool:
        """Whether both are one database: the same file or database, or another one put in the same place."""
        by_key = bool(self.key) and self.key == other.key
        return by_key or ((self.address, self.host) == (other.address, other.host) and not self.server)


def identity_of(connection: Connection) -> StorageIdentity | None:
    """None in a database that was restored from a dump: dumps leave the row out."""
    row = connection.execute(select(storage).order_by(storage.c.id)).first()
    if row is None:
        return None
    try:
        refuse_strange(row, storage)
    except StorageError as error:
        raise StorageError(f"the identity of the storage is unreadable: {error}; restore a backup") from error
    return StorageIdentity(row.identity, row.copy_of, row.checkpoints, row.generation)


def next_generation(connection: Connection) -> int:
    """Count one more command that writes to a checkpoint folder."""
    counted = update(storage).values(generation=storage.c.generation + 1).returning(storage.c.generation)
    return int(connection.scalar(counted) or 0)


def choose_checkpoints(connection: Connection, folder: str) -> None:
    """Keep the default checkpoint folder, so that it is the same one wherever the file goes."""
    connection.execute(update(storage).values(checkpoints=folder))


def become_copy(connection: Connection, original: str, *, new_identity: bool) -> None:
    """Mark this storage as a copy of the storage `original`. new_identity: with an identity of its own."""
    marked = {"copy_of": original} | ({"identity": secrets.token_hex(16)} if new_identity else {})
    if not connection.execute(update(storage).values(marked)).rowcount:
        fresh = {"id": 1, "identity": secrets.token_hex(16), "created": DatabaseTime()}
        connection.execute(insert(storage).values(fresh | marked))


def end_copy(connection: Connection) -> None:
    """End the mark: this storage is independent from now on."""
    connection.execute(update(storage).values(copy_of=None))


def site_of(connection: Connection, safe_url: str, file: Path | None) -> StorageSite:
    """Where the database of this connection lies."""
    if file is not None:
        return StorageSite(str(file), socket.gethostname(), str(file.stat().st_ino))
    allowed = connection.scalar(text("SELECT has_function_privilege('pg_control_system()', 'execute')"))
    system = connection.scalar(text("SELECT system_identifier FROM pg_control_system()")) if allowed else ""
    number = connection.scalar(text("SELECT oid FROM pg_database WHERE datname = current_database()"))
    return StorageSite(safe_url, "", f"{system}:{number}" if allowed else "")


def identity_table(connection: Connection) -> str:
    """The name of the table `storage` with its schema, as PostgreSQL's programs take it; others may have one too."""
    schema = text("SELECT quote_ident(n.nspname) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace "
                  "WHERE c.oid = to_regclass('storage')")  # fmt: skip
    return f"{connection.scalar(schema)}.storage"


def database_exists(connection: Connection, key: str) -> bool:
    """Whether a database with this key is on the same PostgreSQL server as the one of the connection."""
    number = key.rpartition(":")[2]
    query = text("SELECT count(*) FROM pg_database WHERE oid = CAST(:number AS oid)")
    return is_postgresql(connection) and number.isdecimal() and bool(connection.scalar(query, {"number": number}))


def fences_by_folder(connection: Connection) -> dict[str, int]:
    """The highest fence of each trial by the folder of its checkpoints, like digits/round-1/trial-00003."""
    query = (
        select(campaign.c.name.label("campaign"), study.c.name.label("study"), trial.c.number, trial.c.fence)
        .select_from(trial)
        .join(study)
        .join(campaign)
    )
    kinds = (("campaign", str), ("study", str), ("number", int), ("fence", int))
    rows = [
        row for row in connection.execute(query) if all(isinstance(getattr(row, name), kind) for name, kind in kinds)
    ]
    return {f"{checkpoint_place(row.campaign, row.study)}/trial-{row.number:05d}": row.fence for row in rows}


def checkpoint_place(campaign_name: str, study_name: str) -> str:
    """The folder of a study below the checkpoint folder."""
    return f"{plain_name(campaign_name)}/{plain_name(study_name)}"
