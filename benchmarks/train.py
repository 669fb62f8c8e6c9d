"""Tokens a second, MFU and memory of the three stages on this machine's GPUs, as one table with the machine's name.

    python -m benchmarks.train [--ranks N] [--gemma google/gemma-3-4b-it --cosmos nvidia/Cosmos-Predict2-2B-Video2World]
                               [--stages projector vision language] [--variants ddp fsdp compile flex recompute]
                               [--batch 16] [--microbatch 4] [--steps 20] [--out TABLE.md] [--folder DIR]
    python -m benchmarks.train --tiny       the tiny model on the CPU: tries the script, its figures mean nothing

Each row is the real command under the real launcher, on the built-in sample (photos of about a megapixel), from the
YAML of the stages: ``ddp`` with sdpa and nothing compiled, the others with one thing changed: FSDP 2, torch.compile,
flex_attention, layers computed again. Without ``--gemma`` the weights are random ones in the released shapes, 9 GB in
the temporary folder, with the tiny model's vocabulary: nothing is fetched, and a step costs the same. Five steps are
not counted. MFU is of model FLOPs (theworld/model/flops.py), HFU with what is computed again; both of the peak that
Composer knows of the GPU. A run that does not fit, or is refused, has its line in the table.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
import torch.version
import yaml

from tests.helpers.random_weights import write_gemma_weights, write_vae_weights
from tests.train.real_shapes import write_real_shapes

ROOT = Path(__file__).resolve().parents[1]
COMPOSER = Path(sys.executable).with_name("composer")
STAGES = {
    "projector": {"vision": True, "language": True, "vae": True},
    "vision": {"vision": False, "language": True, "vae": True},
    "language": {"vision": False, "language": False, "vae": True},
}
VARIANTS: dict[str, dict[str, Any]] = {
    "ddp": {},
    "fsdp": {"parallelism_config": {"fsdp": {}}},
    "compile": {"compile_config": {}},
    "flex": {"model": {"attn_implementation": "flex_attention"}},
    "recompute": {"model": {"activation_checkpointing": True}},
}
SAMPLES = 400
SKIPPED = 5
LONGEST = 3600.0
"""Seconds of a run, loading included."""


def main() -> int:
    given = parsed()
    with tempfile.TemporaryDirectory(dir=given.folder) as place:
        folder = Path(place)
        config = base_config(given, folder)
        convert(config, folder, 16 if given.tiny else SAMPLES)
        table = [*heading(given), "", *head_of_table()]
        print("\n".join(table), flush=True)
        for stage in given.stages:
            for variant in given.variants:
                row = f"| {stage} | {variant} | {measured(given, config, stage, variant, folder)} |"
                print(row, flush=True)
                table.append(row)
    if given.out:
        given.out.write_text("\n".join(table) + "\n")
    return 0


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--ranks", type=int, default=max(1, torch.cuda.device_count()))
    parser.add_argument("--gemma")
    parser.add_argument("--cosmos")
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=list(STAGES))
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--batch", type=int, default=16, help="samples of a rank")
    parser.add_argument("--microbatch", type=int, default=4)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--folder", type=Path)
    given = parser.parse_args()
    if bool(given.gemma) != bool(given.cosmos):
        parser.error("--gemma and --cosmos go together")
    if not given.tiny and not torch.cuda.is_available():
        parser.error("torch finds no GPU; --tiny tries the script on the CPU")
    return given


def base_config(given: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """The stages' YAML with what the runs share."""
    config = yaml.safe_load((ROOT / "yamls" / ("smoke.yaml" if given.tiny else "spatial.yaml")).read_text())
    if given.gemma:
        config["model"] |= {"gemma": given.gemma, "cosmos": given.cosmos}
    elif not given.tiny:
        write_real_shapes(folder)
        write_gemma_weights(folder / "gemma")
        write_vae_weights(folder / "cosmos" / "vae")
        config["model"] |= {"gemma": str(folder / "gemma"), "cosmos": str(folder / "cosmos")}
    raw = folder / "raw"
    config["convert"] |= {"json": f"{raw}/openspatial.json", "images": f"{raw}/images", "out": f"{folder}/mds"}
    config["convert"]["json_cache"] = None
    batch, microbatch = (2, 1) if given.tiny else (given.batch, given.microbatch)
    return config | {
        "run_name": "benchmark",
        "global_train_batch_size": batch * given.ranks,
        "device_train_microbatch_size": microbatch,
        "max_duration": f"{10 * (SKIPPED + given.steps)}ba",
        "save_interval": "1000000ba",
        "loggers": {},
        "code_paths": [str(ROOT / "benchmarks" / "measure_steps.py")],
    }


def convert(config: dict[str, Any], folder: Path, samples: int) -> None:
    """The built-in sample to shards."""
    written = folder / "convert.yaml"
    written.write_text(json.dumps(config))
    sample = [sys.executable, str(ROOT / "convert" / "sample.py"), str(folder / "raw"), "--samples", str(samples)]
    for command in ([*sample, "--available", "1"], [sys.executable, str(ROOT / "convert" / "to_mds.py"), str(written)]):
        subprocess.run(command, check=True, capture_output=True)


def measured(given: argparse.Namespace, config: dict[str, Any], stage: str, variant: str, folder: Path) -> str:
    """The rest of a row: figures of a run, or why there are none."""
    found, log, save = folder / "found.json", folder / f"{stage}-{variant}.log", folder / "run"
    found.unlink(missing_ok=True)
    shutil.rmtree(save, ignore_errors=True)
    changed = {**config, **VARIANTS[variant], "save_folder": str(save)}
    changed["model"] = {**config["model"], **VARIANTS[variant].get("model", {}), "freeze": STAGES[stage]}
    changed["callbacks"] = {"measure_steps:MeasureSteps": {"path": str(found), "skip": SKIPPED, "steps": given.steps}}
    written = folder / f"{stage}-{variant}.yaml"
    written.write_text(json.dumps(changed))
    command = [str(COMPOSER), "-n", str(given.ranks), "recipes/train.py", str(written)]
    with log.open("w") as output:
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        run = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=output, stderr=subprocess.STDOUT)
        try:
            run.wait(LONGEST)
        except subprocess.TimeoutExpired:
            run.terminate()  # the launcher ends its ranks
            run.wait()
    if not found.is_file():
        return f"{why(log)} | | | | | |"
    return figures(json.loads(found.read_text()), given.ranks)


def figures(found: dict[str, Any], ranks: int) -> str:
    def percent(share: float | None) -> str:
        return f"{100 * share:.1f} %" if share else "?"

    rates = f"{1000 * found['step']:,.0f} | {found['samples']:,.2f} | {found['tokens'] / ranks:,.0f}"
    memory = f"{found['memory'] / 2**30:.1f}" if found["memory"] else "?"
    return f"{rates} | {found['tflops']:,.2f} | {percent(found['mfu'])} | {percent(found['hfu'])} | {memory}"


def why(log: Path) -> str:
    """The run's own line, or where to look."""
    lines = [line for line in log.read_text(errors="replace").splitlines() if "error: " in line]
    return lines[0].partition("error: ")[2].replace("|", "/") if lines else log.read_text(errors="replace")[-200:]


def heading(given: argparse.Namespace) -> list[str]:
    """What the figures are of."""
    gpus = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    libraries = ", ".join(f"{name} {version(name)}" for name in ("torch", "mosaicml", "transformers"))
    weights = "builtin:tiny" if given.tiny else given.gemma or "random weights in the shapes of Gemma 3 4B"
    batch = "2 samples a rank" if given.tiny else f"{given.batch} samples a rank in microbatches of {given.microbatch}"
    return [
        f"{given.ranks} x {gpus}, {processor()}, {time.strftime('%Y-%m-%d')}; {libraries}, CUDA {torch.version.cuda}.",
        f"{weights}, {batch}, {given.steps} steps after {SKIPPED}.",
    ]


def processor() -> str:
    """The processor's name."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    named = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    return f"{named or platform.machine()} ({len(os.sched_getaffinity(0))} cores)"


def head_of_table() -> list[str]:
    names = [
        "trains",
        "variant",
        "ms a step",
        "samples/s",
        "tokens/s a GPU",
        "TFLOP/s a GPU",
        "MFU",
        "HFU",
        "GiB a GPU",
    ]
    return ["| " + " | ".join(names) + " |", "|---" * len(names) + "|"]


if __name__ == "__main__":
    sys.exit(main())
