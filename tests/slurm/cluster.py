"""A throw-away SLURM on this machine: real munged, slurmctld and two slurmd, as ordinary processes in one folder.

Nothing outside the folder is written, and no service manager, cgroup or accounting is needed. Where mount namespaces
may be made (root), each fake node has its own /dev/shm and host names, and a task prolog gives each job its own TMPDIR
on each node, as real nodes have.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scontrol", "squeue", "scancel", "unshare")
NODES = ("n1", "n2")
GRACE_SECONDS = 40
KILL_WAIT_SECONDS = 5
PATIENCE = 300.0
"""Seconds that any single thing may take on a slow, busy machine."""

CONFIG = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser={user}
SlurmdUser={user}
SlurmctldPort={port}
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket={root}/munge.socket,cred_expire=5
StateSaveLocation={root}/state
SlurmdSpoolDir={root}/spool/%n
SlurmctldPidFile={root}/slurmctld.pid
SlurmdPidFile={root}/slurmd.%n.pid
SlurmctldLogFile={root}/slurmctld.log
SlurmdLogFile={root}/slurmd.%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
TaskProlog={root}/prolog
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SwitchType=switch/none
MpiDefault=none
ReturnToService=2
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
SlurmdTimeout={node_timeout}
InactiveLimit=0
KillWait={kill_wait}
MinJobAge=600
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
SchedulerParameters=sched_interval=1,bf_interval=1,sched_min_interval=0,batch_sched_delay=0
PriorityType=priority/basic
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
JobRequeue=1
GresTypes=gpu
NodeName=n[1-2] NodeHostname={host} NodeAddr=127.0.0.1 Port=[{first}-{last}] CPUs=2 Gres=gpu:2 State=UNKNOWN
PartitionName=low Nodes=ALL Default=YES PriorityTier=1 PreemptMode=REQUEUE GraceTime={grace} MaxTime=60 State=UP
PartitionName=nograce Nodes=ALL PriorityTier=1 PreemptMode=REQUEUE GraceTime=0 MaxTime=60 State=UP
PartitionName=high Nodes=ALL PriorityTier=100 PreemptMode=OFF MaxTime=60 State=UP
"""


def missing_programs() -> list[str]:
    """What must be installed first: Debian's slurm-wlm and munge."""
    return [name for name in PROGRAMS if shutil.which(name) is None and not Path("/usr/sbin", name).exists()]


MISSING = missing_programs()
NEEDS_SLURM = [
    pytest.mark.slurm,
    pytest.mark.slow,
    pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)} (Debian: slurm-wlm munge)"),
]
"""Marks of a file of tests that start daemons."""


def wait_until(condition: Callable[[], object], what: str, patience: float = PATIENCE) -> None:
    """Look again and again until it is so.

    Raises:
        TimeoutError: names what did not come about.
    """
    end = time.monotonic() + patience
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"after {patience:.0f} s still not: {what}")
        time.sleep(0.1)


class Cluster:
    """The running daemons."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.environment = {**os.environ, "SLURM_CONF": str(root / "slurm.conf")}
        self.environment["PATH"] = f"{os.environ['PATH']}:/usr/sbin:/sbin"

    def call(self, *command: str) -> str:
        """Run a SLURM command and return what it prints."""
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=300, check=False)
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()}")
        return done.stdout.strip()

    def submit(self, folder: Path, *arguments: str, environment: dict[str, str] | None = None) -> str:
        """sbatch from a folder; returns the job's number."""
        done = subprocess.run(
            ["sbatch", "--parsable", *arguments],
            cwd=folder,
            env={**self.environment, **(environment or {})},
            capture_output=True,
            text=True,
            timeout=300,
            check=True,
        )
        return done.stdout.strip()

    def job(self, number: str) -> dict[str, str]:
        """The fields of ``scontrol show job``."""
        text = self.call("scontrol", "-o", "show", "job", number)
        return dict(field.split("=", 1) for field in text.split() if "=" in field)

    def wait_for_state(self, number: str, *states: str) -> None:
        """Until the job is in one of the states."""
        wait_until(lambda: self.job(number)["JobState"] in states, f"job {number} in {states}: {self.job(number)}")

    def start_node(self, name: str) -> None:
        """Start one slurmd, in a mount namespace of its own where that is allowed."""
        private = 'mount -t tmpfs tmpfs /dev/shm && mount --bind "$1/hosts" /etc/hosts && exec slurmd -N "$2"'
        isolated = subprocess.run(["unshare", "-m", "true"], capture_output=True, check=False).returncode == 0
        command = (
            ["unshare", "-m", "sh", "-c", private, "sh", str(self.root), name] if isolated else ["slurmd", "-N", name]
        )
        self.call(*command)

    def kill_node(self, name: str) -> None:
        """A node dies: its slurmd and all that runs under it."""
        pid = int((self.root / f"slurmd.{name}.pid").read_text())
        victims = [
            pid,
            *(process.pid for process in self.processes() if process.environ().get("SLURMD_NODENAME") == name),
        ]
        for victim in victims:
            kill(victim)
        self.call("scontrol", "update", f"nodename={name}", "state=down", "reason=test")

    def processes(self) -> Iterator[psutil.Process]:
        """Jobs' processes and step daemons of this cluster and no other."""
        mine = str(self.root / "slurm.conf")
        for process in psutil.process_iter():
            try:
                environment = process.environ()
            except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
                continue
            if environment.get("SLURM_CONF") == mine and (
                "SLURM_JOB_ID" in environment or process.name() == "slurmstepd"
            ):
                yield process

    def stop(self) -> None:
        """End everything, the controller first, since a job's trap would otherwise be requeued by it."""
        for name in ("slurmctld", *(f"slurmd.{node}" for node in NODES)):
            path = self.root / f"{name}.pid"
            if path.exists():
                kill(int(path.read_text()))
        for _ in range(3):
            for process in list(self.processes()):
                kill(process.pid)
        munge = self.root / "munged.pid"
        if munge.exists():
            kill(int(munge.read_text()))
        shutil.rmtree(self.root, ignore_errors=True)


def kill(pid: int) -> None:
    """kill -9; gone already is fine."""
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def free_ports(count: int) -> int:
    """The first of some free ports in a row."""
    for first in range(21000 + os.getpid() % 5000, 60000, count):
        sockets = [socket.socket() for _ in range(count)]
        try:
            for place, one in enumerate(sockets):
                one.bind(("127.0.0.1", first + place))
        except OSError:
            continue
        else:
            return first
        finally:
            for one in sockets:
                one.close()
    raise RuntimeError("no free ports")


@contextmanager
def running_cluster(root: Path, node_timeout: int = 60) -> Iterator[Cluster]:
    """Start the daemons and end them.

    Args:
        root: a new folder with a short name: sockets lie in it.
        node_timeout: seconds until a silent node counts as down.
    """
    host, user = socket.gethostname().split(".")[0], subprocess.check_output(["id", "-un"], text=True).strip()
    for name in ("state", *(f"spool/{node}" for node in NODES), "tmp"):
        (root / name).mkdir(parents=True)
    root.chmod(0o755)
    port = free_ports(3)
    (root / "slurm.conf").write_text(
        CONFIG.format(
            root=root,
            host=host,
            user=user,
            port=port,
            first=port + 1,
            last=port + 2,
            grace=GRACE_SECONDS,
            kill_wait=KILL_WAIT_SECONDS,
            node_timeout=node_timeout,
        )
    )
    # GPUs that are none: any device file will do, since no control group keeps tasks apart.
    (root / "gres.conf").write_text("Name=gpu File=/dev/null\nName=gpu File=/dev/zero\n")
    (root / "munge.key").write_bytes(os.urandom(256))
    (root / "munge.key").chmod(0o400)
    (root / "hosts").write_text(Path("/etc/hosts").read_text() + "127.0.0.1 n1\n127.0.0.1 n2\n")
    prolog = root / "prolog"
    prolog.write_text(
        f'#!/bin/sh\nt="{root}/tmp/$SLURMD_NODENAME/$SLURM_JOB_ID"; mkdir -p "$t"; echo "export TMPDIR=$t"\n'
    )
    prolog.chmod(0o755)
    cluster = Cluster(root)
    try:
        cluster.call(
            "munged",
            "--force",
            f"--socket={root}/munge.socket",
            f"--key-file={root}/munge.key",
            f"--pid-file={root}/munged.pid",
            f"--seed-file={root}/munge.seed",
            f"--log-file={root}/munged.log",
        )
        cluster.call("slurmctld", "-c")
        for node in NODES:
            cluster.start_node(node)
        wait_until(
            lambda: cluster.call("sinfo", "-h", "-p", "low", "-t", "idle", "-o", "%D") == "2", "two idle nodes", 60
        )
        yield cluster
    finally:
        cluster.stop()
