"""What stands between Composer 0.32.1 and a torch newer than it asks for (docs/newer-torch.md), avoided."""

from __future__ import annotations

import pytest
import torch
from composer.trainer import _patch_pytorch
from packaging.version import Version
from torch.distributed.fsdp import FullyShardedDataParallel
from torch.distributed.fsdp._flat_param import FlatParamHandle

from theworld.compat import finds_microbatch_with_fsdp_1
from theworld.config.schema import Config
from theworld.errors import UserError
from theworld.train.parallelism import prepare_parallelism


def test_the_patch_of_fsdp_1_is_there_up_to_torch_2_7_0(monkeypatch: pytest.MonkeyPatch) -> None:
    """Composer's own call, as its trainer makes it where the search for a microbatch begins."""
    monkeypatch.setattr(FlatParamHandle, "unshard", FlatParamHandle.unshard)  # put back afterwards
    assert finds_microbatch_with_fsdp_1() == (Version(torch.__version__) < Version("2.7.1"))
    if finds_microbatch_with_fsdp_1():
        _patch_pytorch.patch_unshard_for_automicrobatching()
        assert FlatParamHandle.unshard.__name__ == "unshard_with_sync"
    else:
        with pytest.raises(NameError, match="unshard_with_sync"):
            _patch_pytorch.patch_unshard_for_automicrobatching()


def test_a_search_that_would_end_in_a_name_error_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FSDP_VERSION", "1")
    config = Config(parallelism_config={"fsdp": {}}, device_train_microbatch_size="auto")
    monkeypatch.setattr(_patch_pytorch, "unshard_with_sync", None, raising=False)
    prepare_parallelism(config)
    monkeypatch.delattr(_patch_pytorch, "unshard_with_sync")
    with pytest.raises(UserError, match=r"auto does not work with FSDP 1 and torch \d"):
        prepare_parallelism(config)


def test_the_other_patches_are_none() -> None:
    """Composer calls it for every parallelism_config; it is empty for a torch that it does not know."""
    before = dict(vars(FullyShardedDataParallel))
    _patch_pytorch.patch_pytorch()
    assert dict(vars(FullyShardedDataParallel)) == before
