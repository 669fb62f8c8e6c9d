"""What the ranks of one machine share of its memory while they load: mapped files, read once for all of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from composer.utils import get_device
from torch.utils.serialization import config as serialization

from theworld.config.schema import Config


def on_gpu(config: Config) -> bool:
    """Whether the run trains on a GPU."""
    return get_device(config.device).name == "gpu"


def load_device(config: Config) -> torch.device | None:
    """The device that weights go to straight from their mapped files; None: they stay on the CPU."""
    return torch.device("cuda", torch.cuda.current_device()) if on_gpu(config) else None


@contextmanager
def checkpoint_mapped(load_path: str | None, gpu: bool) -> Iterator[None]:
    """Let Composer map the checkpoint's file instead of reading it into the memory of each rank.

    Composer calls ``torch.load`` without that argument, so torch's default is another one meanwhile.

    Args:
        load_path: the checkpoint. A folder is a sharded one, of which each rank reads its own part.
        gpu: whether the run trains on a GPU. On a CPU the optimizer's state would stay in the file.
    """
    if load_path is None or not Path(load_path).is_file() or not gpu:
        yield
        return
    with serialization.patch("load.mmap", True):  # pyright: ignore[reportAttributeAccessIssue]
        yield
