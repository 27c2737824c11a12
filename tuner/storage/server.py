"""What only a PostgreSQL server needs: its own program for a backup."""

import os
import shutil
import subprocess
from pathlib import Path

from sqlalchemy import URL

from tuner.errors import StorageError


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
