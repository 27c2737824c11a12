"""A pgbouncer that pools transactions before a server of the tests."""

import os
import pwd
import subprocess
from contextlib import contextmanager

from storage.postgres import USER, free_port
from support import needs


@contextmanager
def bounced(server, *, pool_size=2):
    """The address by which a pgbouncer of so many connections is reached, without the name of a database."""
    port = free_port()
    settings, users = server.folder / f"pgbouncer-{port}.ini", server.folder / "users"
    users.write_text(f'"worker" ""\n"{USER}" ""\n')
    settings.write_text(
        f"[databases]\n* = host=127.0.0.1 port={server.port}\n[pgbouncer]\nlisten_addr = 127.0.0.1\n"
        f"listen_port = {port}\nauth_type = trust\nauth_file = {users}\npool_mode = transaction\n"
        f"default_pool_size = {pool_size}\nunix_socket_dir =\nlogfile = {server.folder}/pgbouncer.log\n"
    )
    for path in (settings, users):
        path.chmod(0o644)
    user = pwd.getpwnam(USER) if os.geteuid() == 0 else None
    as_user = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []} if user else {}
    with subprocess.Popen([needs.pgbouncer(), "-q", str(settings)], cwd=server.folder, **as_user) as process:
        try:
            yield f"postgresql://{{user}}@127.0.0.1:{port}"
        finally:
            process.terminate()
