"""A pass as Composer sees it: a data loader of batches, each sample once.

:class:`PassLoader` runs the loader's workers over a :class:`~theworld.data.batches.passes.PassDataset` and, when it is
told to and when the known samples are used up, takes up what the converter has added since.
"""

from __future__ import annotations

import atexit
import multiprocessing
import weakref
from collections.abc import Generator, Iterator
from typing import Any

from torch.utils.data import DataLoader

from theworld.data.batches.passes import PassDataset
from theworld.errors import UserError
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
        for start in starts:
            batch = next_on_all_ranks(batches)
            dataset.position = min(start + dataset.global_batch_size, len(dataset.order))
            yield batch
            if dataset.has_grown():
                # The workers, who read ahead in the old order, end here.
                return


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


def next_on_all_ranks(batches: Iterator[Any]) -> Any:
    """This rank's next batch, if all ranks have one: the others could not go on without it.

    Raises:
        UserError: on all ranks, what some rank's loader ran into.
    """
    batch, fault = None, None
    try:
        batch = next(batches)
    except UserError as error:
        fault = type(error)(without_traceback(error))
    raise_together(fault)
    return batch


def without_traceback(error: UserError) -> str:
    """What a worker's error said. torch puts the worker's traceback around it, as text."""
    return str(error).rpartition(f"{type(error).__name__}: ")[2].strip()
