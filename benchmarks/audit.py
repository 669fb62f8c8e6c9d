"""The audit of a large run: seconds and peak memory.

    python benchmarks/audit.py [--samples 909419] [--ranks 512] [--passes 10] [--batch 512] [--folder DIR]

Writes a ledger as the trainer does, with the trainer's own proof in a checkpoint that holds nothing else, and the ids
of a data set, then runs the real command. Needs about 60 bytes of disk for each sample and pass; removed at the end.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from theworld.checkpoint.pass_proof import PROOF, RunProof, no_ids

ROOT = Path(__file__).resolve().parents[1]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=909_419)
    parser.add_argument("--ranks", type=int, default=512)
    parser.add_argument("--passes", type=int, default=10)
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--folder", type=Path)
    given = parser.parse_args()
    code, seconds, peak = measure(given.samples, given.ranks, given.passes, given.batch, given.folder)
    print(f"exit code {code}, {seconds:.0f} s, peak {peak:,.0f} MiB")
    return code


def measure(samples: int, ranks: int, passes: int, batch: int, scratch: Path | None) -> tuple[int, float, float]:
    """The command's exit code, its seconds, and the MiB that it had in memory at most."""
    with tempfile.TemporaryDirectory(dir=scratch) as name:
        folder = Path(name)
        ids = [f"{number:016x}" for number in np.random.default_rng(1).permutation(samples).tolist()]
        write_data_set(folder / "mds", ids)
        write_run(folder / "run", ids, ranks, passes, batch, [generation_facts(len(ids))])
        began, peak = time.monotonic(), 0.0
        command = [sys.executable, "recipes/audit.py", str(folder / "run"), str(folder / "mds")]
        with subprocess.Popen(command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}) as running:
            while running.poll() is None:
                peak = max(peak, peak_of(running.pid))
                time.sleep(0.05)
        return running.returncode, time.monotonic() - began, peak


def peak_of(process: int) -> float:
    """MiB that a process has had in memory at most; 0 if it has just ended."""
    text = Path(f"/proc/{process}/status").read_text()
    return next((int(line.split()[1]) / 1024 for line in text.splitlines() if line.startswith("VmHWM")), 0.0)


def write_data_set(folder: Path, ids: list[str]) -> None:
    """One generation, of which only what the audit reads."""
    generation = folder / "gen-00000"
    generation.mkdir(parents=True)
    (generation / "ids.txt").write_text("".join(f"{one}\n" for one in ids))
    (generation / "index.json").write_text(json.dumps({"shards": [{"samples": len(ids)}]}))
    (folder / "manifest.json").write_text(json.dumps({"generations": [generation_facts(len(ids))]}))


def generation_facts(samples: int) -> dict[str, Any]:
    return {"name": "gen-00000", "samples": samples, "shards": 1, "fingerprint": "f"}


def write_run(
    folder: Path, ids: list[str], ranks: int, passes: int, batch: int, generations: list[dict[str, Any]]
) -> None:
    """A run of one attempt over these generations: rank files and a checkpoint."""
    (folder / "ledger").mkdir(parents=True)
    proof = RunProof()
    proof.begin_attempt(1, 0, ranks)
    share, starts = batch // ranks, range(0, len(ids), batch)
    batches = passes * len(starts)
    for rank in range(ranks):
        own = [ids[start + rank * share : start + (rank + 1) * share] for start in starts]
        with (folder / "ledger" / f"rank{rank}.jsonl").open("w") as file:
            for number in range(batches):
                file.write(json.dumps({"launch": 1, "batch": number, "ids": own[number % len(own)]}) + "\n")
    sums = no_ids()
    for one in ids:
        sums["trained"].add(one)
    for number in range(passes):
        proof.advance((number + 1) * len(starts), [sums], generations)
        proof.end_pass()
    (folder / "launches.jsonl").write_text(json.dumps({"launch": 1, "ranks": ranks, "resumed_batch": 0}) + "\n")
    torch.save({"state": {PROOF: proof.text()}}, folder / f"ep{passes}-ba{batches}-rank0.pt")


if __name__ == "__main__":
    sys.exit(main())
