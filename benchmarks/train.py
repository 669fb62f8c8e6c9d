"""Tokens a second, MFU and memory of the three stages on this machine's GPUs, as one table with the machine's name.

    python -m benchmarks.train [--ranks N] [--gemma google/gemma-3-4b-it --cosmos nvidia/Cosmos-Predict2-2B-Video2World]
                               [--stages projector vision language] [--variants ddp fsdp compile recompute flex latents]
                               [--batch 16] [--microbatch 4] [--steps 20] [--limit SECONDS] [--minutes M]
                               [--out TABLE.md] [--folder DIR [--prepare]]
    python -m benchmarks.train --tiny       the tiny model on the CPU: tries the script, its figures mean nothing

Each row is the real command under the real launcher, on the built-in sample (photos of about a megapixel), from the
YAML of the stages: ``ddp`` with sdpa and nothing compiled, the others with one thing changed: FSDP 2, torch.compile,
layers computed again, flex_attention, world latents that were stored before (computed in front of that row, by
convert/add_latents.py) instead of the VAE in each step. On one GPU ``ddp`` is that GPU alone. Without ``--gemma`` the
weights are random ones in the released shapes, 9 GB in the temporary folder, with the tiny model's vocabulary: nothing
is fetched, and a step costs the same. Five steps are not counted. MFU is of model FLOPs (theworld/model/flops.py), HFU
with what is computed again; both of the peak that Composer knows of the GPU. A run that does not fit, is refused, fails
or takes longer than ``--limit`` has its line in the table, and the end of its log on stderr.

``--prepare`` makes weights and shards in ``--folder``, without a GPU; the same call without it measures at once. The
table is written after each row, all stages of a variant before the next one; after ``--minutes`` no row is begun.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
import torch.version
import yaml
from omegaconf import OmegaConf

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
    "recompute": {"model": {"activation_checkpointing": True}},
    "flex": {"model": {"attn_implementation": "flex_attention"}},
    "latents": {"train_loader": {"dataset": {"world_latents": True}}},
}
SKIPPED = 5
SHARED = Path("/dev/shm")
PICTURE_BYTES = 3_300_000
"""Of a sample in a batch."""
AHEAD = 2
"""Batches that a worker keeps ready: prefetch_factor in the YAML."""
END = 60.0
"""Seconds that a run which takes too long has to leave."""


def main() -> int:
    given = parsed()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that a run ends with this script
    with work_folder(given.folder) as folder:
        config = prepared(given, folder)
        if given.prepare:
            return 0
        table = [*heading(given), "", *head_of_table()]
        print("\n".join(table), flush=True)
        until = time.monotonic() + 60 * given.minutes
        for variant in given.variants:
            for stage in given.stages:
                if time.monotonic() > until:
                    return 0
                row = f"| {stage} | {variant} | {measured(given, config, stage, variant, folder)} |"
                print(row, flush=True)
                table.append(row)
                if given.out:
                    given.out.write_text("\n".join(table) + "\n")
    return 0


@contextmanager
def work_folder(named: Path | None) -> Iterator[Path]:
    """The folder that was named, which stays, or a temporary one."""
    if named is not None:
        named.mkdir(parents=True, exist_ok=True)
        yield named.absolute()
        return
    with tempfile.TemporaryDirectory() as place:
        yield Path(place)


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
    parser.add_argument("--limit", type=float, default=600.0, help="seconds of a row, loading included")
    parser.add_argument("--minutes", type=float, default=1e6, help="no row is begun later")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--folder", type=Path, help="keeps weights and shards for the next call")
    parser.add_argument("--prepare", action="store_true", help="only make what --folder keeps; needs no GPU")
    given = parser.parse_args()
    if given.prepare and given.folder is None:
        parser.error("--prepare needs --folder")
    if bool(given.gemma) != bool(given.cosmos):
        parser.error("--gemma and --cosmos go together")
    if not given.tiny and not given.prepare and not torch.cuda.is_available():
        parser.error("torch finds no GPU; --tiny tries the script on the CPU")
    return given


def prepared(given: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """The YAML that the runs share, its weights and shards made, unless an earlier call has made them."""
    config, samples = base_config(given, folder), samples_needed(given)
    made = {"random": not (given.gemma or given.tiny), "samples": samples}
    note = folder / "prepared.json"
    if note.is_file():
        before = json.loads(note.read_text())
        if before["random"] == made["random"] and before["samples"] >= samples:
            return config
    for name in ("gemma", "cosmos", "raw", "mds"):
        shutil.rmtree(folder / name, ignore_errors=True)
    if made["random"]:
        write_real_shapes(folder)
        write_gemma_weights(folder / "gemma")
        write_vae_weights(folder / "cosmos" / "vae")
    convert(config, folder, samples)
    note.write_text(json.dumps(made))
    return config


def samples_needed(given: argparse.Namespace) -> int:
    """For all steps of a run in one pass: at its end workers would start anew."""
    return batch_of(given)[0] * given.ranks * (SKIPPED + given.steps + 1)


def batch_of(given: argparse.Namespace) -> tuple[int, int]:
    """Samples of a rank's batch, and of its microbatches."""
    return (2, 1) if given.tiny else (given.batch, given.microbatch)


def base_config(given: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """The stages' YAML with what the runs share."""
    config = yaml.safe_load((ROOT / "yamls" / ("smoke.yaml" if given.tiny else "spatial.yaml")).read_text())
    if given.gemma:
        config["model"] |= {"gemma": given.gemma, "cosmos": given.cosmos}
    elif not given.tiny:
        config["model"] |= {"gemma": str(folder / "gemma"), "cosmos": str(folder / "cosmos")}
    raw = folder / "raw"
    config["convert"] |= {"json": f"{raw}/openspatial.json", "images": f"{raw}/images", "out": f"{folder}/mds"}
    config["convert"]["json_cache"] = None
    config["train_loader"] |= {"num_workers": workers(given), "prefetch_factor": AHEAD}
    config["train_loader"]["dataset"] |= {"local": str(folder / "cache"), "world_latents": False}
    batch, microbatch = batch_of(given)
    return config | {
        "run_name": "benchmark",
        "global_train_batch_size": batch * given.ranks,
        "device_train_microbatch_size": microbatch,
        "max_duration": f"{10 * (SKIPPED + given.steps)}ba",
        "save_interval": "1000000ba",
        "loggers": {},
        "code_paths": [str(ROOT / "benchmarks" / "measure_steps.py")],
    }


def workers(given: argparse.Namespace) -> int:
    """Of each rank: eight, or what the cores and the shared memory allow; a container has 64 MB of it by default."""
    cores = len(os.sched_getaffinity(0)) // given.ranks - 1
    free = shutil.disk_usage(SHARED).free if SHARED.is_dir() else 0
    room = 0.8 * free / (given.ranks * AHEAD * batch_of(given)[0] * PICTURE_BYTES)
    return max(0, min(8, max(cores, 1), int(room)))


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
    if variant == "latents" and (fault := latents_fault(folder)):
        return f"{fault} | | | | | | |"
    callbacks = {"measure_steps:MeasureSteps": {"path": str(found), "skip": SKIPPED, "steps": given.steps}}
    own = {"save_folder": str(save), "model": {"freeze": STAGES[stage]}}
    changed: Any = OmegaConf.to_container(OmegaConf.merge(config, VARIANTS[variant], own))
    written = folder / f"{stage}-{variant}.yaml"
    written.write_text(json.dumps({**changed, "callbacks": callbacks}))
    command = [str(COMPOSER), "-n", str(given.ranks), "recipes/train.py", str(written)]
    with log.open("w") as output:
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        run = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
        late = not ends(run, given.limit)
    if not found.is_file():
        print("\n".join(log.read_text(errors="replace").splitlines()[-30:]), file=sys.stderr, flush=True)
        return f"{f'not done after {given.limit:.0f} s' if late else why(log)} | | | | | | |"
    return figures(json.loads(found.read_text()), given.ranks)


def latents_fault(folder: Path) -> str | None:
    """Add the world latents to the shards, unless they are there; the line to show if that fails."""
    command = [sys.executable, str(ROOT / "convert" / "add_latents.py"), str(folder / "convert.yaml")]
    done = subprocess.run(command, cwd=ROOT, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, check=False)
    return done.stderr.strip().splitlines()[-1].replace("|", "/") if done.returncode else None


def ends(run: subprocess.Popen[bytes], seconds: float) -> bool:
    """Wait so long for a run; whether it has ended by itself. Nothing of it is left in any case."""
    try:
        run.wait(seconds)
        return True
    except subprocess.TimeoutExpired:
        run.terminate()  # the launcher ends its ranks
        with suppress(subprocess.TimeoutExpired):
            run.wait(END)
        return False
    finally:
        with suppress(ProcessLookupError):
            os.killpg(run.pid, signal.SIGKILL)
        run.wait()


def figures(found: dict[str, Any], ranks: int) -> str:
    def percent(share: float | None) -> str:
        return f"{100 * share:.1f} %" if share else "?"

    times = f"{1000 * found['step']:,.0f} | {1000 * found['slowest']:,.0f}"
    rates = f"{times} | {found['samples']:,.2f} | {found['tokens'] / ranks:,.0f}"
    memory = f"{found['memory'] / 2**30:.1f}" if found["memory"] else "?"
    if found["again"]:
        memory += ", layers computed again"
    return f"{rates} | {found['tflops']:,.2f} | {percent(found['mfu'])} | {percent(found['hfu'])} | {memory}"


def why(log: Path) -> str:
    """The run's own line, or the last one of its log."""
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()] or ["no output"]
    told = [line.partition("error: ")[2] for line in lines if "error: " in line]
    raised = [line for line in lines if "Error: " in line]
    return (told + raised[-1:] + lines[-1:])[0].replace("|", "/")


def heading(given: argparse.Namespace) -> list[str]:
    """What the figures are of."""
    libraries = ", ".join(f"{name} {version(name)}" for name in ("torch", "mosaicml", "transformers"))
    weights = "builtin:tiny" if given.tiny else given.gemma or "random weights in the shapes of Gemma 3 4B"
    batch = "2 samples a rank" if given.tiny else f"{given.batch} samples a rank in microbatches of {given.microbatch}"
    return [
        f"{given.ranks} x {gpu()}, {processor()}, {time.strftime('%Y-%m-%d')}; {libraries}, CUDA {torch.version.cuda}.",
        f"{weights}, {batch}, {workers(given)} workers a rank, {given.steps} steps after {SKIPPED}.",
    ]


def gpu() -> str:
    """The GPU's name, asked for in another process: this one would keep a part of its memory."""
    ask = "import torch; print(torch.cuda.get_device_name() if torch.cuda.is_available() else 'no GPU')"
    done = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, check=True)
    return done.stdout.strip()


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
        "the slowest",
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
