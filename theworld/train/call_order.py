"""What is called while a run trains, in which order: the recipe's own callbacks and those of the YAML."""

from __future__ import annotations

from functools import partial
from typing import Any

from composer.core import Callback
from torch.optim import Optimizer

from theworld.checkpoint.saver import WholeCheckpointSaver
from theworld.train.builders import build_callbacks
from theworld.train.built_run import Run
from theworld.train.callbacks.data_report import DataReport
from theworld.train.callbacks.finite_steps import FiniteSteps
from theworld.train.callbacks.generation_eval import GenerationEval
from theworld.train.callbacks.group_rates import GroupRates
from theworld.train.callbacks.ledger import Ledger
from theworld.train.callbacks.loss_curve import LossCurve
from theworld.train.callbacks.open_pass import OpenPass
from theworld.train.callbacks.optimizer_in_force import OptimizerInForce
from theworld.train.callbacks.padding import PaddingShare
from theworld.train.callbacks.pass_length import PassLength
from theworld.train.callbacks.preemption import Preemption
from theworld.train.callbacks.run_figures import Heartbeat, RunFigures
from theworld.train.callbacks.settings_in_force import SettingsInForce
from theworld.train.callbacks.source_losses import SourceLosses
from theworld.train.hub_sync import CheckpointUploads
from theworld.train.records import starts_so_far, write_config


def build_all_callbacks(
    run: Run, preemption: Preemption, uploads: CheckpointUploads, length: PassLength, optimizer: Optimizer
) -> tuple[list[Callback], WholeCheckpointSaver]:
    """The recipe's own and the YAML's, in the order in which they are called, and the one among them that saves."""
    config, dataset = run.config, run.data.dataset
    steps = FiniteSteps(config.most_lost_steps)
    report = DataReport()
    named = build_callbacks(config)
    # The ledger's line must stand before the checkpoint that contains its batch.
    ledger, saver = build_ledger_and_saver(run, steps, uploads)
    callbacks: list[Callback] = [
        Heartbeat(),
        *(one for one in named if not isinstance(one, GenerationEval)),
        preemption,
        length,
        OpenPass(dataset, run.expectation, config.train_loader.wait, saver, preemption),
        report,
        LossCurve(),
        SourceLosses(dataset, config.log_interval),
        GroupRates(),
        OptimizerInForce(optimizer),
        steps,
        ledger,
        PaddingShare(),
        SettingsInForce(dataset, partial(write_config, config, run.save_folder), run.fence),
        saver,
        *(one for one in named if isinstance(one, GenerationEval)),  # what is saved is not waited for
        RunFigures(dataset, length, saver, uploads, steps, report, *starts_so_far(run.save_folder)),
    ]
    return callbacks, saver


def build_ledger_and_saver(
    run: Run, steps: FiniteSteps, uploads: CheckpointUploads
) -> tuple[Ledger, WholeCheckpointSaver]:
    """What writes down each batch, and what saves: a checkpoint carries the proof of the batches in it."""
    saved = run.weights.saved
    ledger = Ledger(
        run.save_folder,
        run.attempt,
        run.data.dataset,
        loaded=run.load_path,
        branched=run.resume is None,
        proof=saved.proof if saved else None,
        steps=steps,
    )

    def select(checkpoint: dict[str, Any]) -> None:
        run.weights.drop_frozen(checkpoint)
        ledger.add_proof(checkpoint)

    saver = WholeCheckpointSaver(
        run.save_folder,
        run.config.save_interval,
        run.config.save_num_checkpoints_to_keep,
        fence=run.fence,
        before_save=ledger.sync,
        select=select,
        after_save=uploads.saved,
    )
    return ledger, saver
