"""Train TheWorld, or go on where a run was stopped.

    composer [-n RANKS] recipes/train.py YAML [key=value ...]

With stages in the YAML they are trained in order, and those that are finished are left alone.
Exit code 0: done, 1: the run has failed, 2: bad input or configuration, 75: saved, what it needs is not there or out of
reach now, run it again later, 85: stopped on a signal, saved, wants to be started again.
"""

import logging
import os
from copy import deepcopy
from dataclasses import fields
from functools import partial
from pathlib import Path

from theworld import cli
from theworld.config.load import load_config
from theworld.config.schema import Config
from theworld.config.stage_configs import stage_configs
from theworld.errors import EXIT_DONE, UserError, describe
from theworld.model.check_model import check_model_config
from theworld.signals import StopRequest
from theworld.train.check_succession import check_succession
from theworld.train.check_training import check_training

log = logging.getLogger(__name__)

TRAINING = [field.name for field in fields(Config) if field.name not in ("convert", "download")]


def main(argv: list[str]) -> int:
    parser = cli.Parser("composer recipes/train.py", __doc__, TRAINING)
    settings = parser.parse(argv).settings
    stop = StopRequest()
    stop.install()
    try:
        return prepare_and_train(settings, stop)
    finally:
        stop.ignore()


def prepare_and_train(settings: list[str], stop: StopRequest) -> int:
    config = load_config(settings)
    stop.add(config.preemption.signals)
    # What the configuration alone can tell is said before torch is imported.
    runs = stage_configs(config) or [("", config)]
    for _, one in runs:
        check_training(one, cli.world_size())
        check_model_config(one.model)
    check_succession(runs)
    # Samples differ in length: without it the allocator keeps blocks of each size apart. Read when CUDA starts.
    os.environ.setdefault("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True")
    # Checkpoints go to the Hub over plain HTTP, whose time limits and faults the uploads know how to deal with.
    os.environ.setdefault("HF_HUB_DISABLE_XET", "1")
    with stop.held_back():
        from theworld.train.train_stages import train_run

        if config.preflight and cli.rank() == 0:
            from theworld.commands.preflight import before_training

            before_training(deepcopy(config))

    code = train_run(config, stop)
    if code == EXIT_DONE and cli.rank() == 0:
        for _, one in runs:
            if one.report:
                leave_report(Path(str(one.save_folder)))
    return code


def leave_report(save_folder: Path) -> None:
    """The page of a run that has ended. What is wrong with it does not make the run a failed one."""
    from theworld.pages.page_file import write_page
    from theworld.pages.run_page import run_page

    path = save_folder / "report.html"
    try:
        write_page(path, run_page(save_folder))
    except Exception as error:  # the run has ended well, and must not be started again for want of a page
        log.warning("no report: %s", describe(error), exc_info=not isinstance(error, (UserError, OSError)))
    else:
        log.info("report: %s", path)


command = partial(cli.run, main, in_ranks=True)
