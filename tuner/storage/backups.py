"""Consistent copies of a database while others write: of an SQLite file, and of a PostgreSQL server."""

import os
import secrets
import shutil
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path

from sqlalchemy import URL

from tuner.errors import StorageError
from tuner.storage.opened_file import connect_to
from tuner.storage.server import PATIENCE


def dump_postgresql(url: URL, path: Path, identity: str) -> None:
    """Write a dump that pg_restore reads, without the rows of the table `identity`: what is restored is a copy.

    The password goes by the environment, where `ps` does not show it.
    """
    program = shutil.which("pg_dump")
    if program is None:
        raise StorageError("a backup of PostgreSQL needs its program pg_dump (Debian: postgresql-client)")
    address = url.set(drivername="postgresql", password=None).render_as_string(hide_password=False)
    environment = os.environ | ({"PGPASSWORD": str(url.password)} if url.password else {})
    command = [program, "--format=custom", f"--exclude-table-data={identity}", f"--file={path}", f"--dbname={address}"]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)  # noqa: S603
    if ended.returncode:
        path.unlink(missing_ok=True)
        raise StorageError(f"pg_dump failed: {ended.stderr.strip()}")


def copy_sqlite(source: Path, target: Path) -> None:
    """Write a consistent copy of an SQLite file while others write; a plain file copy would miss the log.

    The copy gets a new identity and is marked as a copy. The file gets its name when the copy is complete.
    """
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")
    temporary.touch(mode=0o600)
    try:
        with closing(connect_to(source, PATIENCE)) as reader, closing(sqlite3.connect(temporary)) as writer:
            reader.backup(writer)
            _mark_copy(writer)
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def _mark_copy(copied: sqlite3.Connection) -> None:
    """Files of versions before 3 have no identity: they get one when they are opened."""
    if copied.execute("SELECT 1 FROM sqlite_master WHERE name = 'storage'").fetchone():
        copied.execute("UPDATE storage SET copy_of = identity, identity = ?", [secrets.token_hex(16)])
        copied.commit()
