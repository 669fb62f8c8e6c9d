"""Whether all ranks' devices are well and alike: arithmetic, memory errors, the network between them, their clocks."""

from __future__ import annotations

import shutil
import socket
import statistics
import subprocess
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import torch
from torch import Tensor, distributed

from theworld.preflight.verdicts import FAIL, OK, UNKNOWN, WARN, Verdict

SLOW = 0.85
"""Of the ranks' median rate: one below it is named. All ranks wait for the slowest in each step."""
MOST_SKEW_S = 2.0
"""Between the nodes' clocks; logs and signs of life are compared by them."""
MEASURED_S = 0.5
MATRIX = {"cuda": 8192, "cpu": 768}
MESSAGE = {"cuda": 256 << 20, "cpu": 4 << 20}
"""Bytes of an all-reduce: about the gradients that DDP sends at a time, or a layer of FSDP."""
ROUNDS = 5
ECC = "ecc.errors.uncorrected.volatile.total,ecc.errors.uncorrected.aggregate.total"


@dataclass(frozen=True)
class Device:
    """What a rank measured of its own device.

    Attributes:
        tflops: 10^12 floating-point operations a second in a product of matrices, bfloat16 on a GPU.
        memory_errors: uncorrected ones since the machine was started; None where nothing counts them.
        time: its clock right after a barrier, seconds since 1970.
    """

    rank: int
    host: str
    name: str
    tflops: float
    memory_errors: int | None
    time: float


def check_health(device: torch.device) -> list[Verdict]:
    """Measure all ranks' devices and the network between them; every rank calls it and gets the same."""
    ranks = gather(measure(device))
    return [
        arithmetic_verdict(ranks),
        ecc_verdict(ranks),
        clock_verdict(ranks),
        network_verdict(device, [one.host for one in ranks]),
    ]


def measure(device: torch.device) -> Device:
    """This rank's device; the clock is read last, when all ranks are there."""
    many = distributed.is_initialized()
    rank = distributed.get_rank() if many else 0
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    rate, errors = matmul_rate(device), memory_errors(device)
    if many:
        distributed.barrier()
    return Device(rank, socket.gethostname(), name, rate, errors, time.time())


def gather(own: Device) -> list[Device]:
    """What all ranks found, in their order."""
    if not distributed.is_initialized():
        return [own]
    found: list[Device] = [own] * distributed.get_world_size()
    distributed.all_gather_object(found, own)
    return found


def matmul_rate(device: torch.device) -> float:
    """10^12 operations a second of a square matrix product, the fastest of some rounds."""
    side = MATRIX[device.type]
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    left, right = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    product = torch.mm(left, right)
    wait_for(device)
    best, begun = float("inf"), time.perf_counter()
    while time.perf_counter() - begun < MEASURED_S:
        start = time.perf_counter()
        torch.mm(left, right, out=product)
        wait_for(device)
        best = min(best, time.perf_counter() - start)
    return 2 * side**3 / best / 1e12


def wait_for(device: torch.device) -> None:
    """Until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def memory_errors(device: torch.device) -> int | None:
    """Uncorrected memory errors of a GPU, by the driver; None where it does not count them."""
    tool = shutil.which("nvidia-smi")
    if device.type != "cuda" or tool is None:
        return None
    which = str(torch.cuda.get_device_properties(device).uuid)
    which = which if which.startswith("GPU-") else f"GPU-{which}"
    command = [tool, f"--query-gpu={ECC}", "--format=csv,noheader,nounits", "-i", which]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    counts = [int(part) for part in done.stdout.replace(",", " ").split() if part.isdigit()]
    return counts[0] if counts else None


def arithmetic_verdict(ranks: Sequence[Device]) -> Verdict:
    """The devices' rates; those far below the median are named."""
    middle = statistics.median(one.tflops for one in ranks)
    slow = [one for one in ranks if one.tflops < SLOW * middle]
    figures = {"median_tflops": middle, "ranks": [asdict(one) for one in ranks]}
    text = f"{len(ranks)} x {ranks[0].name}, {middle:.2f} TFLOP/s a device"
    kinds = sorted({one.name for one in ranks})
    if len(kinds) > 1:
        return Verdict("devices", WARN, f"of different kinds: {', '.join(kinds)}; the slowest sets the pace", figures)
    if slow:
        named = ", ".join(f"rank {one.rank} on {one.host} {one.tflops:.2f}" for one in slow)
        return Verdict("devices", WARN, f"{text}; slower: {named}; all ranks wait for these", figures)
    return Verdict("devices", OK, text, figures)


def ecc_verdict(ranks: Sequence[Device]) -> Verdict:
    """Memory that lost data."""
    bad = [one for one in ranks if one.memory_errors]
    if bad:
        named = ", ".join(f"rank {one.rank} on {one.host}: {one.memory_errors}" for one in bad)
        return Verdict("memory errors", FAIL, f"uncorrected ECC errors: {named}; have these GPUs reset or replaced")
    if all(one.memory_errors is None for one in ranks):
        return Verdict("memory errors", UNKNOWN, "nothing counts them here")
    return Verdict("memory errors", OK, "none that was not corrected")


def clock_verdict(ranks: Sequence[Device]) -> Verdict:
    """How far the clocks are apart, with what leaving the barrier takes."""
    early, late = min(ranks, key=lambda one: one.time), max(ranks, key=lambda one: one.time)
    skew = late.time - early.time
    text = f"at most {skew:.3f} s apart"
    if skew > MOST_SKEW_S:
        text = f"{early.host} is {skew:.1f} s behind {late.host}; see that both follow the same time server"
    return Verdict("clocks", WARN if skew > MOST_SKEW_S else OK, text, {"skew_s": skew})


def network_verdict(device: torch.device, hosts: Sequence[str]) -> Verdict:
    """Bandwidth of an all-reduce within the nodes and over all of them."""
    if not distributed.is_initialized() or len(hosts) < 2:
        return Verdict("network", UNKNOWN, "one rank has nobody to talk to")
    everyone = bandwidth(device, None, len(hosts))
    figures = {"all_ranks_gb_s": everyone}
    text = f"all-reduce over {len(hosts)} ranks {everyone:.2f} GB/s"
    if len(set(hosts)) > 1:
        # All ranks make all groups, in the same order, as torch.distributed wants.
        own = None
        for host in sorted(set(hosts)):
            members = [rank for rank, one in enumerate(hosts) if one == host]
            group = distributed.new_group(members)
            own = (group, len(members)) if distributed.get_rank() in members else own
        assert own is not None
        inside = bandwidth(device, *own) if own[1] > 1 else float("nan")
        found = [0.0] * len(hosts)
        distributed.all_gather_object(found, inside)
        within = [one for one in found if one == one]
        if within:
            figures["within_node_gb_s"] = min(within)
            text += f", within a node {min(within):.2f} GB/s at the slowest"
    return Verdict("network", OK, text, figures)


def bandwidth(device: torch.device, group: distributed.ProcessGroup | None, ranks: int) -> float:
    """Bus bandwidth in GB/s, as NCCL's own tests count it: 2 (n - 1) / n of the message over the time."""
    message: Tensor = torch.ones(MESSAGE[device.type] // 4, device=device)
    distributed.all_reduce(message, group=group)
    wait_for(device)
    begun = time.perf_counter()
    for _ in range(ROUNDS):
        distributed.all_reduce(message, group=group)
    wait_for(device)
    seconds = (time.perf_counter() - begun) / ROUNDS
    return 2 * (ranks - 1) / ranks * message.nbytes / seconds / 1e9
