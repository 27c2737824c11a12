"""A SLURM of one node in a temporary folder, on loopback, for tests: Debian's programs, run by who runs the tests."""

import getpass
import os
import shutil
import socket
import subprocess
import tempfile
from contextlib import suppress
from pathlib import Path

import psutil

from support.patience import wait_for

PLACES = ("/usr/sbin", "/usr/bin")
DAEMONS = ("munged", "slurmctld", "slurmd")
CONFIG = """
ClusterName=tuner
SlurmctldHost={host}(127.0.0.1)
SlurmUser={user}
SlurmdUser={user}
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
AuthType=auth/munge
# A job that is requeued waits for as long as a credential is valid: 120 s, or at least 5.
AuthInfo=socket={folder}/munge.socket,cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
SlurmdParameters=config_overrides
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
GresTypes=gpu
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
KillWait=30
MinJobAge=86400
DefMemPerCPU=100
MpiDefault=none
ReturnToService=2
NodeName=node NodeHostname={host} NodeAddr=127.0.0.1 CPUs=64 RealMemory=400000 Gres=gpu:8 State=UNKNOWN
PartitionName=gpu Nodes=node Default=YES MaxTime=INFINITE State=UP PriorityTier=1
PartitionName=urgent Nodes=node MaxTime=60 State=UP PriorityTier=10 PreemptMode=OFF
"""


def program(name):
    """The path of a program of SLURM or munge; None where it is not installed."""
    return next((found for place in (None, *PLACES) if (found := shutil.which(name, path=place))), None)


def slurm():
    """Whether a SLURM can be started here."""
    return all(program(name) for name in (*DAEMONS, "sbatch", "srun", "scontrol"))


def _free_ports(count):
    """Ports below those that the kernel gives to outgoing connections; others in each process."""
    first, found = 12_000 + 40 * (os.getpid() % 200), []
    for port in range(first, first + 40):
        with socket.socket() as trial, suppress(OSError):
            trial.bind(("127.0.0.1", port))
            found.append(port)
    return found[:count]


class Slurm:
    """The cluster. Its node declares more processors, memory and GPUs than the machine has; nothing enforces them."""

    def __init__(self):
        self.folder = Path(tempfile.mkdtemp(prefix="tuner-slurm-"))
        self.environment = os.environ | {"SLURM_CONF": str(self.folder / "slurm.conf")}
        self.daemons = []
        try:
            self._configure()
            self._start()
        except BaseException:
            self.close()
            raise

    def _configure(self):
        for name in ("state", "spool"):
            (self.folder / name).mkdir()
        host = socket.gethostname().split(".")[0]
        given = {"host": host, "user": getpass.getuser(), "ports": _free_ports(2), "folder": self.folder}
        (self.folder / "slurm.conf").write_text(CONFIG.format(**given))
        devices = ("null", "zero", "full", "random", "urandom", "tty", "ptmx", "stdin")
        (self.folder / "gres.conf").write_text("".join(f"Name=gpu File=/dev/{name}\n" for name in devices))
        (self.folder / "munge.key").write_bytes(os.urandom(1024))
        (self.folder / "munge.key").chmod(0o400)

    def _start(self):
        files = {"socket": "socket", "key-file": "key", "pid-file": "pid", "log-file": "log", "seed-file": "seed"}
        munge = [f"--{option}={self.folder}/munge.{name}" for option, name in files.items()]
        for command in (
            ["munged", "--foreground", "--force", *munge],
            ["slurmctld", "-D", "-i"],
            ["slurmd", "-D", "-N", "node"],
        ):
            said = (self.folder / f"{command[0]}.said").open("w")
            command[0] = program(command[0])
            self.daemons.append(
                subprocess.Popen(command, env=self.environment, stdout=said, stderr=said, start_new_session=True)
            )
            said.close()
            if len(self.daemons) == 1:
                wait_for((self.folder / "munge.socket").exists, moves=self.log)
        wait_for(lambda: "idle" in self.asked("sinfo", "-h", "-N", "-o", "%T", check=False), moves=self.log)

    def log(self):
        """What the daemons wrote; it grows while they do something."""
        for daemon in self.daemons:
            assert daemon.poll() is None, self.said()
        return [path.stat().st_size for path in sorted(self.folder.glob("*.log"))]

    def said(self):
        """The ends of all logs."""
        files = [*self.folder.glob("*.said"), *self.folder.glob("*.log")]
        return "\n".join(f"{path.name}: {path.read_text(errors='replace')[-2000:]}" for path in files)

    def asked(self, name, *arguments, check=True):
        """What a program of SLURM prints."""
        command = [program(name), *map(str, arguments)]
        ended = subprocess.run(command, env=self.environment, capture_output=True, text=True, check=False)
        assert not check or ended.returncode == 0, f"{command}: {ended.stderr}\n{self.said()}"
        return ended.stdout.strip()

    def submit(self, script, *options):
        """The id of a batch job."""
        return int(self.asked("sbatch", "--parsable", *options, script).split(";")[0])

    def shown(self, job):
        """What `scontrol show job` says of a job, or of each task of an array, as a dictionary of each."""
        lines = self.asked("scontrol", "show", "job", "-o", job).splitlines()
        return [dict(word.split("=", 1) for word in line.split() if "=" in word) for line in lines]

    def restarts(self, job):
        """How often a job, or each task of an array, was started again."""
        return [int(one["Restarts"]) for one in self.shown(job)]

    def ended(self, job):
        """Whether a job, and each task of an array, ended and does not come back."""
        over = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED")
        return all(one["JobState"] in over for one in self.shown(job))

    def close(self):
        """End all jobs and daemons, also where the test failed."""
        ended = [daemon for daemon in self.daemons if daemon.poll() is None]
        if len(ended) == len(DAEMONS):
            self.asked("scancel", "--user", getpass.getuser(), "--signal=KILL", "--full", check=False)
            self.asked("scancel", "--user", getpass.getuser(), check=False)
        for daemon in reversed(ended):
            daemon.terminate()
        for daemon in ended:
            with suppress(subprocess.TimeoutExpired):
                daemon.wait(timeout=10)
            daemon.kill()
            daemon.wait()
        while left := list(self._left()):  # again, since those that were just starting others are found later
            for process in left:
                with suppress(psutil.NoSuchProcess):
                    process.kill()
            psutil.wait_procs(left)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _left(self):
        """Processes of jobs, and the daemons that keep them: all that were started with this configuration."""
        mine = f"SLURM_CONF={self.folder / 'slurm.conf'}".encode()
        for process in psutil.process_iter():
            with suppress(psutil.Error, OSError):  # psutil's own `environ` is empty for slurmstepd, which has a title
                there = Path(f"/proc/{process.pid}/environ").read_bytes().split(b"\0")
                if mine in there and process.status() != psutil.STATUS_ZOMBIE:
                    yield process
