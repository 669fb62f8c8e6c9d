"""A training run, from the configuration to the last checkpoint."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import torch
from composer import Trainer
from composer.core import TimeUnit
from composer.utils import dist, get_device

from theworld import cli
from theworld.checkpoint.data_only import composer_loads_data
from theworld.checkpoint.fence import Fence, hold
from theworld.checkpoint.on_disk import (
    Checkpoint,
    clear_half_saves,
)
from theworld.checkpoint.optimizer_state import check_optimizer
from theworld.checkpoint.saver import WholeCheckpointSaver
from theworld.checkpoint.weights import Weights, holds_vae, pin_bases, read_saved_weights
from theworld.config.schema import Config
from theworld.data.batches.expectation import promised_samples, remember
from theworld.data.cache.streaming_internals import check_streaming
from theworld.disk_space import full_disk_as_one_line
from theworld.errors import EXIT_REQUEUE, NotNow, Stopped
from theworld.killed_workers import killed_workers_as_one_line
from theworld.model.build import load_processor
from theworld.plain_text import hiding
from theworld.pulse import pulse
from theworld.ranks import from_rank_zero
from theworld.signals import StopRequest
from theworld.train.attended import Attendance
from theworld.train.builders import (
    build_evaluation,
    build_evaluator,
    build_loggers,
    build_model,
    build_optimizer,
    build_scheduler,
    build_training,
)
from theworld.train.built_run import Run
from theworld.train.call_order import build_all_callbacks
from theworld.train.callbacks.ledger import newest_attempt, record_attempt
from theworld.train.callbacks.pass_length import PassLength, announce
from theworld.train.callbacks.preemption import Preemption, any_rank_wants_to_stop
from theworld.train.callbacks.randomness import restore_random_states
from theworld.train.check_training import check_training
from theworld.train.compilation import prepare_compilation
from theworld.train.data import TrainData
from theworld.train.eval_series import eval_facts
from theworld.train.failures import last_step
from theworld.train.find_start import find_start
from theworld.train.fit_memory import fit_memory, memory_errors_as_one_line, smallest_gpu
from theworld.train.host_memory import checkpoint_mapped, on_gpu
from theworld.train.hub_sync import CheckpointUploads, check_hub, write_pretrained
from theworld.train.memory import MemoryOfRun
from theworld.train.optimizer_groups import group_names
from theworld.train.parallelism import gradients_as_buckets, prepare_parallelism
from theworld.train.profiling import build_profiler
from theworld.train.records import attempt_facts, earlier_starts, write_config
from theworld.train.registry import ALGORITHMS, NEVER_FROM_CHECKPOINTS, check_names, construct_named
from theworld.train.room_for_batches import check_room_for_batches, full_shared_memory_as_one_line
from theworld.train.sample_schedule import SampleSchedule

log = logging.getLogger(__name__)


def train(config: Config, stop: StopRequest | None = None) -> int:
    """Train until ``max_duration``, resuming what was begun in ``save_folder`` or on the Hub.

    Args:
        config: the run.
        stop: ends the run early, with a checkpoint, when it is wanted.

    Returns:
        The exit code: 0, or 85 if the run was stopped before its end.

    Raises:
        UserError: something in the configuration or the data set cannot work.
    """
    check_training(config, cli.world_size(), torch.cuda.is_available())
    check_names(config)
    check_streaming()
    prepare_parallelism(config)
    prepare_compilation(config)
    stop = stop or StopRequest(config.preemption.signals)
    stop.read_job_end(config.preemption.grace)
    dist.initialize_dist(get_device(config.device), timeout=config.dist_timeout)
    assert config.save_folder is not None
    save_folder = Path(config.save_folder)
    with hold(save_folder, lambda: newest_attempt(save_folder), lambda: stop.wanted) as fence:
        # First of all: what a killed start has left half written may be what fills the disk.
        from_rank_zero(lambda: clear_half_saves(save_folder))

        def work() -> int:
            with full_disk_as_one_line(save_folder):
                return train_in(save_folder, config, stop, fence)

        return Attendance(config, save_folder, stop, fence).of(work)


def train_in(save_folder: Path, config: Config, stop: StopRequest, fence: Fence) -> int:
    """The same, in a save folder that this start holds."""
    check_hub(config)
    resume, load_path = find_start(config, save_folder, fence)
    saved = read_saved_weights(load_path, config.trust_checkpoints) if load_path else None
    if saved is not None:
        pin_bases(config.model, saved)
    processor = load_processor(config.model)
    data = build_training(config, processor, with_latents=not holds_vae(saved))
    held_out = build_evaluation(config, processor, with_latents=not holds_vae(saved))
    try:
        check_room_for_batches([data, *held_out.values()])
        snapshot = data.dataset.snapshot
        starts = from_rank_zero(lambda: earlier_starts(save_folder))
        expectation = from_rank_zero(lambda: remember(config, starts, snapshot))
        evals = {name: eval_facts(one.dataset.snapshot, starts, name) for name, one in held_out.items()}
        from_rank_zero(
            lambda: expectation.copies(data.dataset.sources.snapshots, data.dataset.mix)
        )  # if it cannot be told, one line for all ranks
        announce(data.dataset, expectation)
        needs_vae = any(one.dataset.latents is None for one in (data, *held_out.values()))
        needs_vae = needs_vae or config.callbacks.get("generation_eval") is not None  # its pictures have no latents
        gpu = smallest_gpu(config)
        if gpu is not None:
            memory = MemoryOfRun(config, needs_vae, snapshot.several_pictures)
            fit_memory(config, memory, dist.get_world_size(), gpu)
        with memory_errors_as_one_line(config):
            model = build_model(config, processor, with_world_encoder=needs_vae)
        weights = Weights(model, group_names(config.optimizer, model))
        if saved is not None:
            weights.take_from(saved, new_stage=resume is None and config.load_weights_only)
        done_before = from_rank_zero(lambda: last_step(save_folder)[1])  # the last line of each rank's file
        lost = max(0, done_before - (resume.batch if resume else 0))
        record_attempt(save_folder, fence.launch, attempt_facts(config, data, resume, lost, evals))
        if resume:
            log_resume(resume, lost, fence.launch)
        write_config(config, save_folder)
        write_pretrained(save_folder, model.model, processor)
        with memory_errors_as_one_line(config), full_shared_memory_as_one_line():
            return fit(
                Run(
                    config,
                    save_folder,
                    model,
                    weights,
                    data,
                    {str(evals[name]["series"]): one for name, one in held_out.items()},
                    expectation,
                    load_path,
                    resume,
                    fence,
                    stop,
                )
            )
    finally:
        data.close()
        for one in held_out.values():
            one.close()


def fit(run: Run) -> int:
    """Run Composer's trainer to its end, or to the next stop; then see the last checkpoint to the Hub."""
    stop, save_folder = run.stop, run.save_folder
    preemption = Preemption(stop, run.fence)
    uploads = CheckpointUploads(run.config, save_folder, run.fence.look)
    mapped = checkpoint_mapped(run.load_path, on_gpu(run.config))
    with gradients_as_buckets(), mapped, composer_loads_data(run.load_path, run.config.trust_checkpoints):
        trainer, saver = build_trainer(run, preemption, uploads)
    for optimizer in trainer.state.optimizers:
        check_optimizer(optimizer, run.load_path or "")
    uploads.resumed(run.resume)
    reopen_pass(trainer, run.data)
    if trainer.state.max_duration is not None and trainer.state.timestamp >= trainer.state.max_duration:
        log.info(
            "finished already: %s is done, %d batches, in %s; for another pass raise max_duration",
            run.config.max_duration,
            int(trainer.state.timestamp.batch),
            save_folder,
        )
        trainer.close()
        uploads.finish(min(run.config.hub.wait, stop.seconds_of_job))
        return 0
    if any_rank_wants_to_stop(stop):
        log.info("stopped before the first batch: %s", stop.reason or "another rank's wish")
        trainer.close()
        uploads.finish(stop.seconds_left)
        return EXIT_REQUEUE
    restore_random_states(trainer)
    try:
        run_trainer(trainer, saver, preemption)
    except NotNow:
        trainer.close()
        uploads.finish(min(run.config.hub.wait, stop.seconds_of_job))
        raise
    trainer.close()
    batches = int(trainer.state.timestamp.batch)
    if preemption.wants_requeue(trainer.state):
        log.info("stopped and saved after batch %d; the same command goes on from there", batches)
        uploads.finish(stop.seconds_left)
        return EXIT_REQUEUE
    uploads.finish(min(run.config.hub.wait, stop.seconds_of_job))
    log.info("done: %d batches, checkpoints in %s%s", batches, save_folder, what_is_missing(run.data))
    return 0


def reopen_pass(trainer: Trainer, data: TrainData) -> None:
    """Where the run has ended with a pass and new samples have come for it since, go back to the end of that pass."""
    state = trainer.state
    end = state.max_duration
    if end is None or end.unit != TimeUnit.EPOCH or state.timestamp < end or int(state.timestamp.batch_in_epoch):
        return
    closed = data.dataset.reopen_pass()
    if closed is not None:
        now = state.timestamp
        # How many tokens the pass has had is written down nowhere, and nothing asks for it.
        state.timestamp = now.copy(
            epoch=int(now.epoch) - 1,
            epoch_in_iteration=max(0, int(now.epoch_in_iteration) - 1),
            batch_in_epoch=closed.batches,
            sample_in_epoch=closed.position,
        )


def what_is_missing(data: TrainData) -> str:
    """For the last line of a run: how many samples the JSON names that did not come."""
    snapshot = data.dataset.snapshot
    missing = (promised_samples(snapshot) or 0) - snapshot.samples
    return f"; {missing} samples that the JSON names were not there" if missing > 0 else ""


def build_trainer(run: Run, preemption: Preemption, uploads: CheckpointUploads) -> tuple[Trainer, WholeCheckpointSaver]:
    """Composer's trainer, the checkpoint loaded, and the callback that saves."""
    config = run.config
    length = PassLength(run.data.dataset, run.expectation)
    optimizer = build_optimizer(config, run.model)
    callbacks, saver = build_all_callbacks(run, preemption, uploads, length, optimizer)
    progress_bar = sys.stderr.isatty() if config.progress_bar is None else config.progress_bar
    trainer = Trainer(
        model=run.model,
        train_dataloader=run.data.spec,
        train_subset_num_batches=length.batches,
        eval_dataloader=[build_evaluator(config, one, series) for series, one in run.held_out.items()] or None,
        eval_interval=config.eval_interval if run.held_out else 1,
        max_duration=config.max_duration,
        optimizers=optimizer,
        schedulers=SampleSchedule(build_scheduler(config), run.data.dataset, run.expectation),
        algorithms=construct_named(ALGORITHMS, "algorithms", config.algorithms),
        callbacks=callbacks,
        loggers=build_loggers(config, run.save_folder),
        profiler=build_profiler(config.profiler, run.save_folder, run.attempt),
        run_name=config.run_name,
        progress_bar=progress_bar,
        log_to_console=not progress_bar,
        console_log_interval=config.log_interval,
        console_stream=hiding(sys.stderr),  # where Composer prints what callbacks say of their settings
        load_path=run.load_path,
        load_weights_only=run.resume is None and config.load_weights_only,
        # Names and shapes are checked already; what a checkpoint lacks is what the bases have.
        load_strict_model_weights=False,
        load_ignore_keys=run.weights.select_saved,
        load_exclude_algorithms=NEVER_FROM_CHECKPOINTS,
        parallelism_config=config.parallelism_config,
        compile_config=config.compile_config,
        device=config.device,
        precision=config.precision,
        device_train_microbatch_size=config.device_train_microbatch_size,
        accumulate_train_batch_on_tokens=True,
        seed=config.seed,
        dist_timeout=config.dist_timeout,
    )
    return trainer, saver


def run_trainer(trainer: Trainer, saver: WholeCheckpointSaver, preemption: Preemption) -> None:
    """Train; a stop in the middle of an evaluation, or where the loader has no batch, leaves the checkpoint of the
    batch before it."""
    try:
        with killed_workers_as_one_line():
            trainer.fit()
    except (Stopped, NotNow) as left:
        # All ranks have left together between two batches.
        preemption.stopped |= isinstance(left, Stopped)
        if isinstance(left, Stopped):
            log.info("stopping after batch %d: %s", int(trainer.state.timestamp.batch), left)
        if saver.last_saved_batch != int(trainer.state.timestamp.batch):
            saver.save(trainer.state, last=True)
        if isinstance(left, NotNow):
            raise
    finally:
        pulse.begin("the end of training")


def log_resume(resume: Checkpoint, lost: int, attempt: int) -> None:
    """Say where the run goes on and what the stop cost."""
    log.info("attempt %d resumes from %s after batch %d; %d steps were lost", attempt, resume.path, resume.batch, lost)
