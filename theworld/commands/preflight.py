"""Will this run work? [composer -n RANKS | python] recipes/preflight.py [YAML] [--json] [key=value ...]

All that can be known without training: configuration, versions, data set, steps and hours of a pass, shares of samples
cut and of regions without boxes (of 2,000 samples by chance, with 95 % intervals), tokens a sample, room in the cache,
/dev/shm and the save folder, memory of a GPU, rights on the Hub. Each rank's device is measured: rate, memory errors,
clock, and the network between the ranks, which the composer launcher starts as it starts the training.
Exit code 0: nothing would fail; unknown is no failure. 1: the run would fail. 2: the configuration cannot be read.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from typing import TYPE_CHECKING

from theworld import cli
from theworld.config.load import load_config
from theworld.config.schema import Config
from theworld.config.stage_configs import stage_configs
from theworld.errors import EXIT_BROKEN_PROMISE, EXIT_DONE

if TYPE_CHECKING:
    from theworld.preflight.verdicts import Verdict

SECTIONS = ("model", "train_loader", "hub", "save_folder", "global_train_batch_size", "preflight")


def main(argv: list[str]) -> int:
    parser = cli.Parser("recipes/preflight.py", __doc__, SECTIONS)
    parser.add_argument("--json", action="store_true", help="the verdicts and their figures as JSON")
    parser.add_argument("--ranks", metavar="N", type=int, help="that will train (default: those started here)")
    parser.add_argument("--gpu", metavar="GB", type=float, help="memory of a GPU (default: of the smallest here)")
    parser.add_argument("--samples-per-second", metavar="N", type=float, help="of all ranks: for the hours of a pass")
    given = parser.parse(argv)
    config = load_config(given.settings)
    import torch
    from composer.utils import dist, get_device

    from theworld.preflight.all_checks import check_run
    from theworld.preflight.gpu_health import check_health
    from theworld.preflight.verdicts import as_table, would_fail
    from theworld.train.fit_memory import smallest_gpu

    started = cli.world_size()
    if started > 1:
        dist.initialize_dist(get_device(config.device), timeout=config.dist_timeout)
    on_gpu = torch.cuda.is_available() and config.device != "cpu"
    device = torch.device("cuda", torch.cuda.current_device()) if on_gpu else torch.device("cpu")
    health, smallest = check_health(device), smallest_gpu(config)
    if cli.rank() != 0:
        # Rank 0 alone speaks; its exit code is that of all.
        return EXIT_DONE
    gpu = int(given.gpu * 1e9) if given.gpu else smallest
    local = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    ranks = given.ranks or started
    verdicts = [*check_stages(config, lambda one: check_run(one, ranks, local, gpu, given.samples_per_second)), *health]
    if given.json:
        cli.say(json.dumps({"fails": would_fail(verdicts), "verdicts": [asdict(one) for one in verdicts]}))
    else:
        cli.say(as_table(verdicts))
    return EXIT_BROKEN_PROMISE if would_fail(verdicts) else EXIT_DONE


def check_stages(config: Config, check_run: Callable[[Config], list[Verdict]]) -> list[Verdict]:
    """The verdicts on each stage, with its name; on the run if it has none."""
    stages = stage_configs(config)
    if not stages:
        return check_run(config)
    from theworld.preflight.all_checks import check_order_of_stages

    verdicts = [replace(one, name=f"{name}: {one.name}") for name, of_stage in stages for one in check_run(of_stage)]
    return [check_order_of_stages(stages), *verdicts]


def before_training(config: Config) -> None:
    """The same at the start of a training (``preflight: true``), on rank 0 and without measuring devices.

    Raises:
        UserError: the run would fail.
    """
    import logging

    from theworld.errors import UserError
    from theworld.preflight.all_checks import check_run
    from theworld.preflight.verdicts import FAIL, as_table

    local = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    verdicts = check_stages(config, lambda one: check_run(one, cli.world_size(), local))
    logging.getLogger(__name__).info("preflight:\n%s", as_table(verdicts))
    for one in verdicts:
        if one.state == FAIL:
            raise UserError(f"preflight: {one.name}: {one.text}")


command = partial(cli.run, main, in_ranks=True)
