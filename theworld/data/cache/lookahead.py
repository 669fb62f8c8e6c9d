"""Shards fetched a little ahead of their use."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor


class ShardLookahead:
    """Fetches shards in the background shortly before they are needed."""

    def __init__(self, fetch: Callable[[int], None]) -> None:
        self.fetch = fetch
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
        """Return when the shard is there; raise what its fetch ran into."""
        self.fetched[shard].result()
