"""A Ray cluster of one or two nodes on loopback addresses of this machine, with everything it writes in one folder."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import closing, suppress

import psutil

from support.patience import wait_for

TRIES = 4  # a node does not always start on a busy machine
RAY = [sys.executable, "-m", "ray.scripts.scripts"]
STORE = "80000000"  # bytes of the object store, which nothing here uses
# Run as a driver: what the cluster says of its nodes, or a node that is told to go down.
NODES = """
import json, ray, sys
ray.init(address=sys.argv[1], _node_ip_address="127.0.0.2", logging_level="ERROR")
print("NODES", json.dumps([[n["NodeManagerAddress"], n["NodeID"], n["Alive"]] for n in ray.nodes()]))
"""


class RayCluster:
    """One node at 127.0.0.2, which is the head, and others at the addresses after it."""

    def __init__(self, folder, cpus=2):
        self.folder, self.cpus = folder, cpus
        folder.mkdir(exist_ok=True)
        (folder / "home").mkdir(exist_ok=True)
        with closing(socket.socket()) as free:
            free.bind(("127.0.0.2", 0))
            self.port = free.getsockname()[1]
        self.address = f"127.0.0.2:{self.port}"
        self.environment = os.environ | {
            "HOME": str(folder / "home"), "RAY_TMPDIR": str(folder), "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0123456789abcdef0123456789abcdef", "OMP_NUM_THREADS": "1",
            "RAY_raylet_start_wait_time_s": "120", "RAY_agent_register_timeout_ms": "120000",
        }  # fmt: skip
        self.start_head()

    def start_head(self):
        head = ["--head", f"--port={self.port}", "--include-dashboard=false", "--disable-usage-stats"]
        self._start("127.0.0.2", head)

    def add_node(self, number):
        """A node at an address of its own."""
        self._start(f"127.0.0.{number}", [f"--address={self.address}"])

    def _start(self, host, options):
        command = [*RAY, "start", f"--node-ip-address={host}", f"--num-cpus={self.cpus}", *options]
        log = self.folder / f"start-{host}.log"
        for _ in range(TRIES):
            with log.open("wb") as out:  # its daemons keep it open: a pipe would not end
                ended = subprocess.run(
                    [*command, f"--object-store-memory={STORE}"], env=self.environment, stdin=subprocess.DEVNULL,
                    stdout=out, stderr=out, timeout=300, check=False,
                )  # fmt: skip
            if ended.returncode == 0:
                return
            self.kill_node(host)
        raise AssertionError(log.read_text(errors="replace")[-3000:])

    def processes(self, *words):
        """Processes of the cluster, in whose command line all of these stand."""
        found = []
        for one in psutil.process_iter(["cmdline"]):
            line = " ".join(one.info["cmdline"] or ())
            if str(self.folder) in line and all(word in line for word in words):
                found.append(one)
        return found

    def kill_node(self, host):
        """Kill all of a node at once, as a machine that is lost."""
        for one in self.processes(f"={host}"):
            _kill(one)
        if host == "127.0.0.2":
            for one in self.processes("gcs_server"):
                _kill(one)

    def nodes(self):
        """Address and id of each node that lives."""
        said = subprocess.run(
            [sys.executable, "-c", NODES, self.address], env=self.environment, capture_output=True, text=True,
            timeout=300, check=True,
        ).stdout  # fmt: skip
        (line,) = [line for line in said.splitlines() if line.startswith("NODES ")]
        return {host: node for host, node, alive in json.loads(line[6:]) if alive}

    def drain(self, host, seconds=600):
        """Tell the cluster that a node goes down."""
        node = self.nodes()[host]
        words = ["--reason", "DRAIN_NODE_REASON_PREEMPTION", "--reason-message", "a test"]
        subprocess.run(
            [*RAY, "drain-node", "--address", self.address, "--node-id", node, *words,
             "--deadline-remaining-seconds", str(seconds)],
            env=self.environment, capture_output=True, timeout=300, check=True,
        )  # fmt: skip

    def close(self):
        end = time.monotonic() + 60
        while (left := self.processes()) and time.monotonic() < end:
            for one in left:
                _kill(one)
            psutil.wait_procs(left, timeout=5)


def _kill(process):
    with suppress(psutil.NoSuchProcess):
        process.send_signal(signal.SIGKILL)


def seat_processes(folder):
    """Processes of seats and workers, and fork servers, of the studies below a folder."""
    found = []
    for one in psutil.process_iter(["cmdline"]):
        line = " ".join(one.info["cmdline"] or ())
        if "fork_server_process --listen" in line and str(folder) in line:
            found.append(one)
    return found


__all__ = ["RayCluster", "seat_processes", "wait_for"]
