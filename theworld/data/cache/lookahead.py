"""Shards fetched a little ahead of their use."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor, wait

from theworld.errors import NotNow

LONGER = 60.0
"""Seconds beyond its patience for which a fetch that does not return at all is waited for."""


class ShardLookahead:
    """Fetches shards in the background shortly before they are needed.

    Args:
        fetch: has a shard in the cache when it returns; has patience of its own.
        patience: seconds.
    """

    def __init__(self, fetch: Callable[[int], None], patience: float) -> None:
        self.fetch = fetch
        self.patience = patience
        self.fetched: dict[int, Future[None]] = {}

    def __enter__(self) -> ShardLookahead:
        self.executor = ThreadPoolExecutor(1, thread_name_prefix="shards")
        return self

    def __exit__(self, *_: object) -> None:
        self.executor.shutdown(wait=False, cancel_futures=True)

    def request(self, shards: Iterable[int]) -> None:
        """Ask for these shards, in this order, unless that was done before."""
        for shard in shards:
            if shard not in self.fetched:
                self.fetched[shard] = self.executor.submit(self.fetch, shard)

    def wait(self, shard: int) -> None:
        """Return when the shard is there; raise what its fetch ran into.

        Raises:
            NotNow: it has not returned at all: a store that accepts the request and stays silent.
        """
        fetch, begun = self.fetched[shard], time.monotonic()
        if not wait([fetch], timeout=self.patience + LONGER).done:
            raise NotNow(f"shard {shard}: no answer for {time.monotonic() - begun:.0f} s")
        fetch.result()
