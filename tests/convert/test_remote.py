"""A data set in an object store: moto's S3 server, streaming's own uploader, downloader and reader."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto.server import ThreadedMotoServer
from raw_folder import Raw, hashes

from theworld.data.shards.convert import convert

pytestmark = pytest.mark.slow  # every run of the command imports streaming

BUCKET = "data-sets"
URL = f"s3://{BUCKET}/open/spatial"


@dataclass
class Store:
    """The server, and the environment that leads to it."""

    client: Any
    environment: dict[str, str]

    def names(self) -> set[str]:
        listing = self.client.list_objects_v2(Bucket=BUCKET)
        return {item["Key"] for item in listing.get("Contents", [])}

    def read(self, key: str) -> bytes:
        return self.client.get_object(Bucket=BUCKET, Key=key)["Body"].read()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    _, port = server.get_host_and_port()
    endpoint = f"http://127.0.0.1:{port}"
    urllib.request.urlopen(urllib.request.Request(f"{endpoint}/moto-api/reset", method="POST")).close()
    keys = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1"}
    client = boto3.client(
        "s3",
        endpoint_url=endpoint,
        aws_access_key_id="test",
        aws_secret_access_key="test",
        region_name="us-east-1",
    )
    client.create_bucket(Bucket=BUCKET)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    environment = {**os.environ, **keys, "S3_ENDPOINT_URL": endpoint, "TMPDIR": str(scratch)}
    yield Store(client, environment)
    server.stop()


def run(raw: Raw, store: Store, *overrides: str, scratch: Path | None = None) -> subprocess.CompletedProcess[str]:
    environment = store.environment | ({"TMPDIR": str(scratch)} if scratch else {})
    return raw.run(f"convert.out={URL}", *overrides, env=environment)


def test_grows_in_the_store_from_another_machine_and_is_read_from_there(tmp_path: Path, store: Store) -> None:
    raw = Raw(tmp_path / "raw", 40)
    raw.add_images(*range(0, 40, 2))
    done = run(raw, store, "convert.holdout=0.3")
    assert done.returncode == 0, done.stderr
    staged = next((tmp_path / "scratch").glob("theworld-convert-*"))
    assert not list(staged.rglob("*.mds")), "shards stay on the local disk after they are up"

    raw.add_images(*range(1, 40, 2))
    elsewhere = tmp_path / "another machine"
    elsewhere.mkdir()
    done = run(raw, store, "convert.holdout=0.3", scratch=elsewhere)
    assert done.returncode == 0, done.stderr

    local = Raw(tmp_path / "local", 40)
    for numbers in (range(0, 40, 2), range(1, 40, 2)):
        local.add_images(*numbers)
        convert(local.config(holdout=0.3))
    expected = {f"open/spatial/{path}": None for path in hashes(local.out)}
    expected |= {f"open/spatial-eval/{path}": None for path in hashes(local.folder / "out-eval")}
    found = store.names()
    assert set(expected) - {"open/spatial/rejected.jsonl"} <= found
    for key in found:
        root = local.out if key.startswith("open/spatial/") else local.folder / "out-eval"
        assert store.read(key) == (root / key.split("/", 2)[2]).read_bytes(), key

    script = (
        "import sys; from streaming import StreamingDataset; "
        "d = StreamingDataset(remote=sys.argv[1], local=sys.argv[2], shuffle=False, batch_size=1); "
        "print(*[d[i]['id'] for i in range(len(d))])"
    )
    command = [sys.executable, "-c", script, URL, str(tmp_path / "cache")]
    read = subprocess.run(command, env=store.environment, capture_output=True, text=True, check=True)
    assert read.stdout.split() == local.ids()


def test_a_kill_leaves_no_index_and_the_next_run_finishes(tmp_path: Path, store: Store) -> None:
    raw = Raw(tmp_path / "raw", 600)
    raw.add_images(*range(600))
    process = subprocess.Popen(
        raw.command(f"convert.out={URL}"),
        env=store.environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    while not any(key.endswith(".mds") for key in store.names()):
        assert process.poll() is None
    process.kill()
    process.wait()
    assert not {key for key in store.names() if key.endswith(".json")}
    done = run(raw, store)
    assert done.returncode == 0, done.stderr
    convert(raw.config())
    for path in hashes(raw.out):
        if path != "rejected.jsonl":
            assert store.read(f"open/spatial/{path}") == (raw.out / path).read_bytes()
    manifest = json.loads(store.read("open/spatial/manifest.json"))
    assert manifest["samples"] == 600


def test_no_such_bucket_is_one_line(tmp_path: Path, store: Store) -> None:
    raw = Raw(tmp_path / "raw", 4)
    raw.add_images(0, 1)
    done = raw.run("convert.out=s3://nowhere-at-all/x", env=store.environment)
    assert done.returncode == 2
    assert done.stderr.count("error:") == 1
    assert "convert.out: s3://nowhere-at-all/x" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_store_that_was_emptied_is_not_silently_refilled(tmp_path: Path, store: Store) -> None:
    raw = Raw(tmp_path / "raw", 4)
    raw.add_images(0, 1)
    assert run(raw, store).returncode == 0
    for key in store.names():
        store.client.delete_object(Bucket=BUCKET, Key=key)
    raw.add_images(2)
    done = run(raw, store)
    assert done.returncode == 2
    assert "manifest.json is gone" in done.stderr
