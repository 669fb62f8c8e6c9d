"""Add world latents to a converted data set: python convert/add_latents.py [YAML] [key=value ...]

Reads convert.out, convert.workers, model.cosmos, model.world_image_size and train_loader.dataset.draw_bboxes. Writes
convert.out/world_latents; the images are not written again. It takes every GPU of the machine; for several machines,
composer -n RANKS convert/add_latents.py ... or slurm/add_latents.sbatch, a rank for each GPU. Killed and run again, by
as many ranks or others, it goes on behind the last finished shards.
"""

from __future__ import annotations

from functools import partial

from theworld.cli import Parser, rank, run, say
from theworld.config.load import load_config
from theworld.errors import EXIT_DONE


def main(argv: list[str]) -> int:
    parser = Parser("convert/add_latents.py", __doc__, ["convert", "model", "train_loader"])
    config = load_config(parser.parse(argv).settings)
    from theworld.data.shards.add_latents import add_latents

    added = add_latents(config)
    if rank() == 0:
        say(
            f"{config.convert.out}: {added.samples:,} latents added in {len(added.generations)} generations "
            f"({added.bytes / 1e6:,.1f} MB, {added.seconds:.1f} s), {added.before:,} were there"
        )
    return EXIT_DONE


command = partial(run, main, in_ranks=True)
