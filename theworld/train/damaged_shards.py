"""Shards that are damaged for good: the same fault of the same shard at start after start of a run.

Half of a shard may be visible for a while, which is waited for and left for later. A shard that gives the same wrong
bytes at several starts, each of which had all its patience, does not become whole by waiting.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from composer.utils import dist

from theworld.checkpoint.fence import Fence
from theworld.errors import DamagedShard, UserError
from theworld.files import append_line, read_json_lines
from theworld.ranks import from_rank_zero

FILE = "damaged_shards.jsonl"
STARTS = 3
"""Starts that have to find a shard damaged in the same way before it counts as damaged for good."""


def error_to_leave_with(save_folder: Path, fence: Fence, error: DamagedShard) -> UserError:
    """What a run leaves with where a shard is damaged; called on all ranks if the error is one of all.

    Raises:
        Superseded: a newer start of the run has begun; nothing is written down.
    """
    if dist.get_world_size() > 1 and not error.on_all_ranks:
        return error

    fence.look_together()
    # In a list, since an error by itself is raised by what tells it to the other ranks.
    found = from_rank_zero(lambda: [judge_damage(save_folder, fence.launch, error)])[0]
    found.on_all_ranks = True
    return found


def judge_damage(save_folder: Path, launch: int, error: DamagedShard) -> UserError:
    """Write down that a start has left because of a damaged shard.

    Args:
        save_folder: of the run.
        launch: the start's number.
        error: what it leaves with.

    Returns:
        The error to leave with: the same, or one that is not tried again.
    """
    path = save_folder / FILE
    now = datetime.now(UTC).isoformat(timespec="seconds")
    append_line(path, {"time": now, "launch": launch, "what": error.what})
    starts = {line["launch"] for line in read_json_lines(path) if line["what"] == error.what}
    if len(starts) < STARTS:
        return error
    return UserError(
        f"{error.what}; {len(starts)} starts of the run have found it so ({path}): put back the shard that was "
        "converted, of which convert/verify.py finds all that differ, and the same command goes on"
    )
