"""A Hub of each test's own, and a finished run to upload to it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hub_double import WRITE_TOKEN, HubDouble
from huggingface_hub import HfApi, constants, file_download

from tests.conftest import smoke_config
from theworld.hub.access import use_timed_connections
from theworld.train.run import train


@pytest.fixture(scope="session")
def port() -> int:
    """Where the doubles of this process listen, one after the other: commands of several tests then have the same
    address of the Hub, which its client reads when it is imported, and can share their imports."""
    with HubDouble() as double:
        return double.port


@pytest.fixture
def hub(port: int) -> Iterator[HubDouble]:
    with HubDouble(port) as double:
        yield double


@pytest.fixture
def client(hub: HubDouble, monkeypatch: pytest.MonkeyPatch) -> Callable[[], HfApi]:
    """The real client, as the uploads use it, talking to the double."""
    use_timed_connections()
    # Read from HF_ENDPOINT when the client was imported; it takes addresses apart by it.
    monkeypatch.setattr(constants, "ENDPOINT", hub.url)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)  # as commands/train.py sets it
    for module in (file_download, constants):  # huggingface_hub 0.36 reads it in the first, 2 in the second
        template = hub.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(module, "HUGGINGFACE_CO_URL_TEMPLATE", template, raising=False)
    return lambda: HfApi(hub.url, token=WRITE_TOKEN)


@pytest.fixture(scope="module")
def finished_run(raw_sample: Path, mds_sample: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The save folder of a run without a Hub: stopped after 4 of its 7 batches, all checkpoints kept."""
    folder = tmp_path_factory.mktemp("hubrun")
    config = smoke_config(
        raw_sample,
        mds_sample,
        f"save_folder={folder / 'run'}",
        f"train_loader.dataset.local={folder / 'cache'}",
        "global_train_batch_size=4",
        "device_train_microbatch_size=2",
        "train_loader.num_workers=0",
        "model.freeze.language=true",
        "save_interval=2ba",
        "max_duration=4ba",
    )
    assert train(config) == 0
    return folder / "run"
