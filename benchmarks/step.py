"""What of a training step is not the model: at smoke size, and at Gemma 3 4B's width on the CPU.

    python -m benchmarks.step [--smoke-steps 30] [--wide-steps 4] [--rounds 3]

Real runs of ``recipes/train.py`` on the built-in sample, with one callback more (benchmarks/time_steps.py), which asks
the clock at each of Composer's events: what computes (forward, loss, backward, clipping, optimizer), the wait for the
loader, the copy of the batch, its split, callbacks and loggers, the rest of Composer. The first steps are left out, and
no checkpoint is written meanwhile. CPU time of the loader's worker stands beside it: it works at the same time.

- smoke: ``yamls/smoke.yaml``, the tiny model; a step is so short that what surrounds it shows.
- wide: hidden size, heads, vision tower and 896 pixels of Gemma 3 4B with 2 layers of 34 and 1 of 27, the tiny model's
  vocabulary and VAE, language trained with the projector; a step of the whole model is longer still.
- smoke, compiled: how often torch.compile starts anew after the first steps (backend aot_eager: what is guarded is the
  same, and no C++ compiler is needed).
- the loss of 1,024 answers over Gemma's vocabulary, forward and backward: the most memory it takes.

Tokens a second, MFU, memory, DDP beside FSDP 2, compilation and the three stages on a GPU are ``benchmarks.train``'s;
this script calls it where there is one.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
import yaml

from benchmarks.machine import head, median, row, spread
from tests.helpers.random_weights import write_gemma_weights
from tests.train.real_shapes import write_real_shapes
from theworld.model.loss import CHUNK_TOKENS, answer_loss

ROOT = Path(__file__).resolve().parents[1]
SKIPPED = 4
VOCABULARY, ANSWERS, HIDDEN = 262_208, 1024, 64
"""Of the loss; the width does not matter, since logits are what it holds."""
COMPILED = {"backend": "aot_eager"}
THREADS = {"OMP_NUM_THREADS": str(len(os.sched_getaffinity(0))), "OMP_WAIT_POLICY": "PASSIVE"}
"""Threads that wait do not spin: on a machine that has other work to do they would take the core from each other."""
FEW_LAYERS = {"text_config": 2, "vision_config": 1}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--smoke-steps", type=int, default=30)
    parser.add_argument("--wide-steps", type=int, default=4, help="0: not measured")
    parser.add_argument("--rounds", type=int, default=3, help="of the smoke size; the wide one runs once")
    parser.add_argument("--no-compile", action="store_true")
    parser.add_argument("--loss", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.loss:
        print(json.dumps(loss_memory()))
        return 0
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        smoke = smoke_config(folder, given.smoke_steps)
        found = {"smoke": [run(folder, smoke) for _ in range(given.rounds)]}
        if given.wide_steps:
            found["wide"] = [run(folder, wide_config(folder, given.wide_steps))]
        print_steps(found)
        compiled = None if given.no_compile else run(folder, {**smoke, "compile_config": COMPILED})
    print_the_rest(compiled)
    show_gpu()
    return 0


# ---- runs


def smoke_config(folder: Path, steps: int) -> dict[str, Any]:
    """The smoke run with so many steps, its shards made."""
    config = yaml.safe_load((ROOT / "yamls" / "smoke.yaml").read_text())
    samples = (SKIPPED + steps) * config["global_train_batch_size"]
    command = [sys.executable, "convert/sample.py", str(folder / "raw"), "--samples", str(samples), "--available", "1"]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    raw = {"json": f"{folder}/raw/openspatial.json", "images": f"{folder}/raw/images", "out": f"{folder}/mds"}
    config["convert"] |= raw
    config["train_loader"]["dataset"]["local"] = str(folder / "cache")
    written = folder / "convert.yaml"
    written.write_text(json.dumps(config))
    subprocess.run([sys.executable, "convert/to_mds.py", str(written)], cwd=ROOT, check=True, capture_output=True)
    return config | {
        "max_duration": f"{SKIPPED + steps}ba",
        "save_interval": "1000000ba",
        "code_paths": [str(ROOT / "benchmarks" / "time_steps.py")],
        "progress_bar": False,
    }


def wide_config(folder: Path, steps: int) -> dict[str, Any]:
    """The same with a model as wide as the released one, and of a few layers."""
    write_real_shapes(folder)
    config = folder / "gemma" / "config.json"
    shapes = json.loads(config.read_text())
    for part, layers in FEW_LAYERS.items():
        shapes[part] |= {"num_hidden_layers": layers}
    shapes["text_config"] |= {"vocab_size": vocabulary(folder / "gemma")}
    config.write_text(json.dumps(shapes))
    write_gemma_weights(folder / "gemma")
    made = smoke_config_again(folder)
    made["model"] |= {"gemma": str(folder / "gemma"), "world_image_size": 512}
    made["model"]["projector"] |= {"patch": 4}
    made["train_loader"]["dataset"] |= {"max_seq_len": 4096}
    sizes = {"global_train_batch_size": 1, "device_train_microbatch_size": 1, "max_duration": f"{1 + steps}ba"}
    return made | sizes


def smoke_config_again(folder: Path) -> dict[str, Any]:
    """A copy of what the smoke run had."""
    return json.loads((folder / "run.yaml").read_text())


def vocabulary(gemma: Path) -> int:
    """Rows of the embedding that the folder's tokenizer needs, with room for the world's tokens."""
    from transformers import AutoTokenizer

    return -(-(len(AutoTokenizer.from_pretrained(gemma)) + 8) // 64) * 64


def run(folder: Path, config: dict[str, Any]) -> dict[str, Any]:
    """Train in a process of its own; what the callback found."""
    with tempfile.TemporaryDirectory(dir=folder) as save:
        found, written = folder / "found.json", folder / "run.yaml"
        found.unlink(missing_ok=True)
        skip = 1 if int(config["max_duration"].removesuffix("ba")) <= SKIPPED + 1 else SKIPPED
        timer = {"time_steps:TimeSteps": {"path": str(found), "skip": skip}}
        callbacks = {**{name: value for name, value in config["callbacks"].items() if "TimeSteps" not in name}, **timer}
        written.write_text(json.dumps({**config, "save_folder": save, "callbacks": callbacks}))
        command = [sys.executable, "recipes/train.py", str(written)]
        settings = {**os.environ, "PYTHONPATH": str(ROOT), **THREADS}
        done = subprocess.run(command, cwd=ROOT, env=settings, capture_output=True, text=True, check=False)
    if not found.is_file():
        raise SystemExit(done.stderr[-3000:])
    return json.loads(found.read_text())


# ---- tables


def print_steps(found: dict[str, list[dict[str, Any]]]) -> None:
    """Milliseconds of a step, and the shares of what it is spent on."""
    purposes = sorted(
        {purpose for runs in found.values() for one in runs for purpose in one["spent"]},
        key=lambda purpose: (purpose != "model", purpose),
    )
    counted = {name: sum(len(one["steps"]) for one in runs) for name, runs in found.items()}
    print(head("a step", *(f"{name}, {counted[name]} steps" for name in found)))
    means = {name: [sum(one["steps"]) / len(one["steps"]) for one in runs] for name, runs in found.items()}
    print(row("ms, median of the rounds' means", *(f"{1000 * median(values):,.1f}" for values in means.values())))
    print(row("spread of the rounds", *(spread(values) for values in means.values())))
    outside = [f"{median([1 - share(one, 'model') for one in runs]):.2%}" for runs in found.values()]
    print(row("**outside the model**", *(f"**{one}**" for one in outside)))
    for purpose in purposes:
        print(row(purpose, *(of_step(runs, purpose) for runs in found.values())))
    workers = (median([1000 * one["workers"] / len(one["steps"]) for one in runs]) for runs in found.values())
    print(row("beside it: CPU ms of the loader's worker", *(f"{one:,.0f}" for one in workers)))
    print(row("padding", *(f"{median([one['padding'] for one in runs]):.1%}" for runs in found.values())))
    print("\nThe callbacks that take most of a step, microseconds:\n")
    print(head("", *found))
    names = dict.fromkeys(name for runs in found.values() for name in runs[0]["callbacks"] if name != "TimeSteps")
    for name in list(names)[:7]:
        print(row(name, *(f"{median([callback(one, name) for one in runs]):,.0f}" for runs in found.values())))


def share(one: dict[str, Any], purpose: str) -> float:
    return one["spent"].get(purpose, 0.0) / sum(one["steps"])


def of_step(runs: list[dict[str, Any]], purpose: str) -> str:
    """Milliseconds of a step and its share."""
    seconds = median([one["spent"].get(purpose, 0.0) / len(one["steps"]) for one in runs])
    return f"{1000 * seconds:,.2f} ms, {median([share(one, purpose) for one in runs]):.2%}"


def callback(one: dict[str, Any], name: str) -> float:
    """Microseconds of a step."""
    return 1e6 * one["callbacks"].get(name, 0.0) / len(one["steps"])


def print_the_rest(compiled: dict[str, Any] | None) -> None:
    """Compilations, and the loss' memory."""
    told = "Compiled: left out by --no-compile."
    if compiled is not None:
        told = (
            f"Compiled, {compiled['graphs']} graphs in the first {SKIPPED} steps, {compiled['again']} in the next "
            f"{len(compiled['steps'])}; padding {compiled['padding']:.1%}, since lengths are multiples of 256."
        )
    print(f"\n{told}\n")
    chunked, whole = called_loss()
    print(
        f"The loss of {ANSWERS:,} answers over {VOCABULARY:,} tokens takes {chunked / 2**30:.2f} GiB at most in chunks "
        f"of {CHUNK_TOKENS}, {whole / 2**30:.2f} GiB in one (resident memory of a process of its own)."
    )


def called_loss() -> list[int]:
    """:func:`loss_memory` in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.step", "--loss"]
    settings = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=settings, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def loss_memory() -> list[int]:
    """Bytes that this process's memory grows by at most while the loss goes forward and backward: in chunks, and then,
    which takes more, in one."""
    embedding = torch.nn.Linear(HIDDEN, VOCABULARY, bias=False).requires_grad_(False)
    hidden = torch.randn(1, ANSWERS + 1, HIDDEN, requires_grad=True)
    labels = torch.randint(0, VOCABULARY, (1, ANSWERS + 1))
    answer_loss(hidden[:, :3], labels[:, :3], None, embedding).loss.backward()  # loads what it needs
    before, found = most_memory(), []
    for chunk in (CHUNK_TOKENS, ANSWERS):
        answer_loss(hidden, labels, None, embedding, chunk).loss.backward()
        found.append(most_memory() - before)
    return found


def most_memory() -> int:
    """Bytes resident at most so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def show_gpu() -> None:
    """The table of :mod:`benchmarks.train`, or a line that there is none."""
    what = "tokens/s, MFU, memory, DDP and FSDP 2, compiled or not, VAE on the fly or latents, three stages"
    if not torch.cuda.is_available():
        print(f"\n| {what} | no GPU: not measured; python -m benchmarks.train |\n|---|---|")
        return
    print(flush=True)
    subprocess.run([sys.executable, "-m", "benchmarks.train", "--steps", "10"], cwd=ROOT, check=False)


if __name__ == "__main__":
    sys.exit(main())
