"""A pass as Composer sees it: a data loader of batches, each sample once.

:class:`PassLoader` runs the loader's workers over a :class:`~theworld.data.batches.passes.PassDataset` and, when it is
told to and when the known samples are used up, takes up what the converter has added since.
"""

from __future__ import annotations

import atexit
import multiprocessing
import signal
import time
import weakref
from collections.abc import Generator, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from composer.utils import dist
from torch.utils.data import DataLoader

from theworld.data.batches.passes import PassDataset
from theworld.data.batches.worker_notes import WorkerNotes
from theworld.errors import Stopped, UserError
from theworld.progress import LINE_EVERY, Progress
from theworld.pulse import LOADER, RANKS, Interrupted, pulse
from theworld.ranks import raise_together

_loaders: weakref.WeakSet[PassLoader] = weakref.WeakSet()


class PassLoader(DataLoader):
    """Batches of the rank. One iteration is one pass, growth included.

    It has no length: how many samples a pass will have is not known while images still arrive.
    """

    dataset: PassDataset

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self._passes: weakref.WeakSet[Generator[Any, None, None]] = weakref.WeakSet()
        self._begun = False
        """A batch has come."""
        self.dataset.notes = WorkerNotes(self.num_workers, self.dataset.shard_name)
        _loaders.add(self)

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        generator = self._pass()
        self._passes.add(generator)
        return generator

    def close(self) -> None:
        """End the workers of passes that were not read to their end."""
        for generator in list(self._passes):
            generator.close()

    def _pass(self) -> Generator[Any, None, None]:
        dataset = self.dataset
        if not dataset.follow_growth:
            # Evaluation: always from the start, also after an iteration that was broken off.
            dataset.start_pass()
        while True:
            dataset.last_batch_may_be_short = False
            yield from self._known_batches()
            if dataset.take_up_growth() or len(dataset.batch_starts()):
                continue
            # Only now, with nothing new to fill it, is the short last batch due.
            dataset.last_batch_may_be_short = True
            yield from self._known_batches()
            if not (dataset.take_up_growth() or dataset.give_again()):
                break
        dataset.finish_pass()

    def _known_batches(self) -> Iterator[Any]:
        dataset = self.dataset
        starts = dataset.batch_starts()
        if not len(starts):
            return
        dataset.warn_of_small_cache()
        batches = super().__iter__()
        for number, start in enumerate(starts):
            with self._first_batch(start):
                batch = next_on_all_ranks(batches, dataset.notes, number % dataset.notes.workers)
            dataset.position = min(start + dataset.global_batch_size, len(dataset.order))
            yield batch
            if dataset.has_grown():
                # The workers, who read ahead in the old order, end here.
                return

    def _first_batch(self, start: int) -> AbstractContextManager[None]:
        """Shows how far the first batch of a training is, by the worker that makes it, on rank 0."""
        of_training, self._begun = self.dataset.follow_growth and not self._begun, True
        if not of_training or dist.get_global_rank() != 0:
            return nullcontext()
        notes = self.dataset.notes
        return FirstBatch(len(self.dataset.slots(start)), notes).watch(lambda: notes.samples[0])


class FirstBatch(Progress):
    """Progress of a start's first batch, which waits for the first shards and comes from worker 0.

    Args:
        samples: of this rank's batch.
        notes: of the loader's workers.
    """

    def __init__(self, samples: int, notes: WorkerNotes, line_every: float = LINE_EVERY) -> None:
        super().__init__(samples, "samples", "first batch", line_every)
        self.notes = notes

    def note(self, seconds: float) -> str:
        return self.notes.tell(0)


@atexit.register
def end_workers() -> None:
    """End the workers at exit, also those of a pass that an exception still holds on to.

    They do not listen to SIGTERM, by which Python would end them: it would wait for them for ever.
    """
    for loader in list(_loaders):
        loader.close()
    for child in multiprocessing.active_children():
        if child.daemon:
            child.kill()


def next_on_all_ranks(batches: Iterator[Any], notes: WorkerNotes, worker: int) -> Any:
    """This rank's next batch, if all ranks have one: the others could not go on without it.

    Args:
        batches: the loader's iterator.
        notes: of its workers.
        worker: the one whose batch is due.

    Raises:
        UserError: on all ranks, what some rank's loader ran into; :class:`Stopped` if the run is to stop and some
            rank's loader has no batch.
    """
    batch, fault, begun = None, None, time.monotonic()
    try:
        with pulse.at(LOADER, lambda: notes.waits_as_planned(worker), lambda: notes.tell(worker), interruptible=True):
            batch = next(batches)
    except UserError as error:
        fault = type(error)(without_traceback(error))
    except Interrupted:
        fault = Stopped(f"the loader had no batch: {notes.tell(worker)}")
        # One that was stopped by a signal could not end with its rank.
        notes.send(signal.SIGCONT)
    with pulse.at(RANKS):
        raise_together(fault)
    pulse.loader_seconds += time.monotonic() - begun
    return batch


def without_traceback(error: UserError) -> str:
    """What a worker's error said. torch puts the worker's traceback around it, as text."""
    return str(error).rpartition(f"{type(error).__name__}: ")[2].strip()
