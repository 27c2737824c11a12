"""A PostgreSQL server for tests, started by the tests themselves: Debian's programs, a folder, a loopback port.

python tests/storage/postgres.py        starts one and prints its URL, until Ctrl-C
"""

import glob
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
from contextlib import suppress
from pathlib import Path

USER = "postgres"


def programs():
    """The folder of initdb and pg_ctl; None where PostgreSQL is not installed."""
    found = shutil.which("initdb")
    folders = sorted(glob.glob("/usr/lib/postgresql/*/bin"), key=lambda name: int(name.split("/")[4]), reverse=True)
    return Path(found).resolve().parent if found else next((Path(folder) for folder in folders), None)


def free_port():
    """A port that no outgoing connection takes by chance, now or while the server is stopped; another in each process.

    The kernel gives those from 32768 on by default.
    """
    own = os.getpid() % 100
    for port in range(20_000 + 100 * own, 20_100 + 100 * own):
        with socket.socket() as trial, suppress(OSError):
            trial.bind(("127.0.0.1", port))
            return port
    raise OSError("no free port")


class Server:
    """A server in a temporary folder. It refuses to run as root, so root runs it as the user postgres."""

    def __init__(self, **settings):
        self.settings = "".join(f" -c {name}={value}" for name, value in settings.items())
        self.bin = programs()
        self.folder = Path(tempfile.mkdtemp(prefix="tuner-postgres-"))
        self.data = self.folder / "data"
        self.user = pwd.getpwnam(USER) if os.geteuid() == 0 else None
        if self.user:
            os.chown(self.folder, self.user.pw_uid, self.user.pw_gid)
        self.port = free_port()
        self._run("initdb", "-A", "trust", "-U", USER, "-D", self.data, "--no-sync")
        self.start()

    @property
    def url(self):
        return f"postgresql://{USER}@127.0.0.1:{self.port}/postgres"

    def start(self):
        options = f"-p {self.port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={self.folder}"
        options += self.settings
        self._run("pg_ctl", "-D", self.data, "-l", self.folder / "log", "-w", "-o", options, "start")

    def stop(self, mode="fast"):
        self._run("pg_ctl", "-D", self.data, "-m", mode, "-w", "stop")

    def close(self):
        self.stop("immediate")
        shutil.rmtree(self.folder)

    def _run(self, program, *arguments):
        as_user = {"user": self.user.pw_uid, "group": self.user.pw_gid, "extra_groups": []} if self.user else {}
        command = [str(self.bin / program), *map(str, arguments)]
        ended = subprocess.run(
            command,
            cwd=self.folder,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
            **as_user,
        )
        assert ended.returncode == 0, f"{command}: {ended.stderr}"


if __name__ == "__main__":
    server = Server()
    try:
        os.write(1, f"{server.url}\n".encode())
        while True:
            time.sleep(60)
    except KeyboardInterrupt:
        server.close()
