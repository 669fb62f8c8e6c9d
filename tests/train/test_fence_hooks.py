"""A start that was superseded finds out in training, not only when it saves."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from composer.utils import get_device

from theworld.checkpoint.fence import Fence
from theworld.lease import Lease, Process, Superseded, begin
from theworld.signals import StopRequest
from theworld.train.callbacks.preemption import Preemption

NEWER = Process("node-9", None, 0, None, 1, None)


def test_between_two_batches(tmp_path: Path) -> None:
    lease = Lease.take(tmp_path)
    preemption = Preemption(StopRequest(), Fence(lease.launch, lease))
    state: Any = SimpleNamespace(device=get_device("cpu"))
    assert not preemption.agreed(state)
    assert begin(tmp_path / "lease", 9, NEWER)
    lease._look_only()  # what the lease's own thread does every ten seconds
    with pytest.raises(Superseded, match="attempt 9"):
        preemption.agreed(state)
    lease.release()
