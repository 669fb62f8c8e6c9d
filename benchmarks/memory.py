"""The README's figures of memory and bytes at the released models' shapes, which it makes itself; nothing is fetched.

python -m benchmarks.memory             the estimate's table, layers, loss, pictures: on tensors without data
python -m benchmarks.memory --load      also what two ranks have for themselves after loading: writes 9 GB of random
                                        weights into the temporary folder, and takes some minutes
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

import torch

from tests.helpers.loading import loaded_by_ranks
from tests.helpers.random_weights import write_gemma_weights, write_vae_weights
from tests.train.real_shapes import write_real_shapes
from theworld.config.load import load_config
from theworld.config.schema import Config
from theworld.model.activations import Precision, language_layer, loss_chunk
from theworld.model.loss import CHUNK_TOKENS
from theworld.train.memory import GIB, MemoryOfRun

YAML = str(Path(__file__).resolve().parents[1] / "yamls" / "spatial.yaml")
STAGES = {
    "projector": [],
    "+ vision": ["model.freeze.vision=false"],
    "+ language": ["model.freeze.vision=false", "model.freeze.language=false"],
}
FOUR_BITS = "model.load_in_4bit=true"
LORA = ["model.lora={rank: 16}"]
ADAPTERS = {"+ adapters": LORA, "+ adapters, in 4 bits": [*LORA, FOUR_BITS]}
SIZES = ("4B", "12B", "27B")
RANKS, TOKENS, LONG, ANSWERS = 8, 940, 1024, 1024
MB = 1e6
HALF = torch.bfloat16


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--load", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        bases = write_real_shapes(Path(place))
        show_estimates(bases)
        memory = MemoryOfRun(load_config([YAML, *bases]))
        show_parts(memory)
        if given.load:
            show_loading(Path(place))
    show_larger()
    return 0


def show_estimates(bases: list[str]) -> None:
    """GiB a GPU: states and sum under DDP and FSDP 2."""
    print(f"GiB a GPU, {RANKS} GPUs, amp_bf16, one sample of {TOKENS} tokens at a time\n")
    print("| trains | states, DDP | sum | recomputed | states, FSDP 2 | sum | recomputed |")
    print("|---|---|---|---|---|---|---|")
    for stage, freeze in STAGES.items():
        config = load_config([YAML, *bases, *freeze, "device_train_microbatch_size=1"])
        memory = MemoryOfRun(config)
        found = []
        for config.parallelism_config in (None, {"fsdp": {}}):
            found.append(memory.estimate(config, RANKS, TOKENS).states)
            found += [total(memory, config, again) for again in (False, True)]
        print(f"| {stage} | {' | '.join(f'{size / GIB:.1f}' for size in found)} |", flush=True)


def show_larger() -> None:
    """GiB a GPU for each size: DDP and FSDP 2, each also with layers computed again."""
    print(f"\nGiB a GPU, {RANKS} GPUs: DDP, recomputed, FSDP 2, recomputed\n")
    for size in SIZES:
        with tempfile.TemporaryDirectory() as place:
            bases = write_real_shapes(Path(place), size)
            for what, overrides in (STAGES | ADAPTERS).items():
                if FOUR_BITS in overrides and find_spec("bitsandbytes") is None:
                    continue
                config = load_config([YAML, *bases, *overrides, "device_train_microbatch_size=1"])
                memory, found = MemoryOfRun(config), []
                for config.parallelism_config in (None, {"fsdp": {}}):
                    found += [total(memory, config, again) for again in (False, True)]
                print(f"| {size} {what} | {' | '.join(f'{one / GIB:.1f}' for one in found)} |", flush=True)


def total(memory: MemoryOfRun, config: Config, again: bool) -> int:
    """Bytes, with layers computed again or not."""
    config.model.activation_checkpointing = again
    return memory.estimate(config, RANKS, TOKENS).total


def show_parts(memory: MemoryOfRun) -> None:
    """What a layer keeps, the loss takes, a picture and a checkpoint are."""
    shapes = memory.model.config
    for what, trains, again in (("frozen", False, False), ("trained", True, False), ("computed again", False, True)):
        kept = language_layer(shapes, 1, LONG, Precision(HALF, HALF, trains), again).kept
        print(f"a layer, {what}: {kept / LONG / 1000:.1f} kB a token at {LONG} tokens")
    frozen = Precision(HALF, HALF, False)
    chunked, whole = (loss_chunk(shapes, frozen, answers).passing for answers in (CHUNK_TOKENS, ANSWERS))
    print(f"the loss of {ANSWERS} answers: {chunked / GIB:.2f} GiB in chunks, {whole / GIB:.2f} GiB in one")
    gemma, vae = 3 * shapes.vision_config.image_size**2, 3 * shapes.world_image_size**2
    latent = 2 * shapes.latent_channels * shapes.latent_side**2
    print(
        f"pictures of a sample: {gemma / MB:.1f} + {vae / MB:.1f} MB as bytes, {4 * (gemma + vae) / MB:.1f} as floats"
    )
    print(
        f"with a latent: {(gemma + latent) / MB:.1f} MB; 16 batches of 32: {16 * 32 * (gemma + vae) / MB / 1000:.1f} GB"
    )
    trained = sum(weight.nbytes for weight in memory.model.parameters() if weight.requires_grad)
    print(f"weights and optimizer of the projector: {3 * trained / MB:.1f} MB")


def show_loading(folder: Path) -> None:
    """Bytes of a rank's own after loading random weights, and its peak, for a device with its own memory."""
    write_gemma_weights(folder / "gemma")
    write_vae_weights(folder / "cosmos" / "vae")
    for rank in loaded_by_ranks(2, str(folder / "gemma"), str(folder / "cosmos")):
        print(f"a rank that trains Gemma: peak {rank['peak'] / 1e9:.1f} GB, files' pages included")
        print(
            f"a frozen model on the CPU: {rank['private'] / 1e9:.2f} of {rank['weights'] / 1e9:.1f} GB the rank's own"
        )


if __name__ == "__main__":
    sys.exit(main())
