"""The lease of a save folder as all ranks of a run see it: rank 0 holds it, and all end together if it is lost."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from composer.utils import dist

from theworld.checkpoint.on_disk import clear_half_saves
from theworld.lease import Lease
from theworld.ranks import from_rank_zero


class Fence:
    """Keeps a start of a run from writing where a newer one does.

    Args:
        launch: this start's number.
        lease: on rank 0; None on the others.
    """

    def __init__(self, launch: int, lease: Lease | None) -> None:
        self.launch = launch
        self.lease = lease

    def look(self) -> None:
        """For rank 0, right before it writes: raise if a newer start has begun.

        Raises:
            Superseded: names it.
        """
        if self.lease is not None:
            self.lease.look()

    def look_together(self) -> None:
        """The same on all ranks; all call it."""
        from_rank_zero(self.look)

    def move_above(self, newest: Callable[[], int]) -> None:
        """Number this start above the newest one of a history that has just been fetched; all ranks call it.

        Args:
            newest: the newest start that the folder knows of now; called on rank 0.

        Raises:
            Superseded: a newer start of the run has begun.
        """

        def move() -> int:
            assert self.lease is not None
            self.lease.move_above(newest())
            return self.lease.launch

        self.launch = from_rank_zero(move)

    @property
    def lost(self) -> bool:
        """On rank 0, whether a newer start has been seen; costs nothing."""
        return self.lease is not None and self.lease.lost


@contextmanager
def hold(save_folder: Path, newest: Callable[[], int], stop: Callable[[], bool]) -> Iterator[Fence]:
    """Hold the save folder while this is open; all ranks call it.

    Args:
        save_folder: of the run.
        newest: the newest start that the folder knows of; this one gets a higher number. Called on rank 0.
        stop: whether to give up waiting for another holder. Called on rank 0.

    Raises:
        UserError: another start of the run is at work there.
        NotNow: asked to stop while waiting.
    """
    lease: Lease | None = None

    def take() -> int:
        nonlocal lease
        lease = Lease.take(save_folder, newest(), stop, lambda: clear_half_saves(save_folder))
        return lease.launch

    launch = from_rank_zero(take)
    try:
        yield Fence(launch, lease if dist.get_global_rank() == 0 else None)
    finally:
        if lease is not None:
            lease.release()
