"""A data set in an object store and on the Hub: the real clients against local doubles."""

from __future__ import annotations

import hashlib
import os
import subprocess
import threading
from collections.abc import Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.helpers.launcher import Script
from tests.helpers.s3_store import s3_server, upload

pytestmark = pytest.mark.slow  # each reader imports streaming

READER = """
import sys
from tests.helpers.loader import open_data, read_pass, smoke_on
from theworld.cli import run
def main(argv):
    data = open_data(smoke_on(*argv, "train_loader.num_workers=1", "train_loader.dataset.patience=0"))
    print(len(set(read_pass(data))))
    data.close()
    return 0
sys.exit(run(main))
"""


def read_all(remote: str, cache: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Read one pass in a process of its own and print how many samples there were."""
    return Script(READER, remote, str(cache), environment={**os.environ, **environment}).end()


def error_line(done: subprocess.CompletedProcess[str], code: int = 2) -> str:
    """The one line that the user sees, with the exit code."""
    assert done.returncode == code, done.stderr
    errors = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert len(errors) == 1, done.stderr
    assert "Traceback" not in done.stderr
    return errors[0]


@pytest.fixture
def s3() -> Iterator[dict[str, str]]:
    with s3_server() as environment:
        yield environment


def test_s3(mds_sample: Path, tmp_path: Path, s3: dict[str, str]) -> None:
    upload(mds_sample, s3)
    done = read_all("s3://sets/spatial", tmp_path, **s3)
    assert done.stdout.strip() == "26", done.stderr
    assert "no index.json" in error_line(read_all("s3://sets/elsewhere", tmp_path, **s3))


def test_a_store_that_does_not_answer_is_one_line(tmp_path: Path) -> None:
    line = error_line(
        read_all(
            "s3://sets/spatial",
            tmp_path,
            S3_ENDPOINT_URL="http://127.0.0.1:9",
            AWS_ACCESS_KEY_ID="test",
            AWS_SECRET_ACCESS_KEY="test",
            AWS_DEFAULT_REGION="us-east-1",
            AWS_MAX_ATTEMPTS="1",
        ),
        code=75,
    )
    assert "s3://sets/spatial/manifest.json: cannot be read" in line


class HubDouble(BaseHTTPRequestHandler):
    """Serves the files of a folder as the Hub serves those of a data set's repository."""

    def __init__(self, root: Path, *arguments: object) -> None:
        self.root = root
        super().__init__(*arguments)  # pyright: ignore[reportArgumentType]

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""

    def do_HEAD(self) -> None:
        self.answer(body=False)

    def do_GET(self) -> None:
        self.answer(body=True)

    def answer(self, body: bool) -> None:
        path = self.root / self.path.partition("/datasets/someone/spatial/resolve/main/")[2].partition("?")[0]
        if not path.is_file():
            self.send_response(404)
            self.send_header("X-Error-Code", "EntryNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        content = path.read_bytes()
        self.send_response(200)
        self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        self.send_header("X-Repo-Commit", "c" * 40)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if body:
            self.wfile.write(content)


@pytest.fixture
def hub(mds_sample: Path) -> Iterator[dict[str, str]]:
    """Environment of a Hub that has the sample as ``someone/spatial``, in the folder ``mds``."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(HubDouble, mds_sample.parent))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield {
        "HF_ENDPOINT": f"http://127.0.0.1:{server.server_address[1]}",
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_OFFLINE": "0",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    }
    server.shutdown()
    server.server_close()


def test_hub(mds_sample: Path, tmp_path: Path, hub: dict[str, str]) -> None:
    done = read_all(f"hf://datasets/someone/spatial/{mds_sample.name}", tmp_path, **hub)
    assert done.stdout.strip() == "26", done.stderr
    shards = sorted(tmp_path.glob("gen-*/*.mds"))
    assert [path.read_bytes() for path in shards] == [
        path.read_bytes() for path in sorted(mds_sample.glob("gen-*/*.mds"))
    ]
    assert "no index.json" in error_line(read_all("hf://datasets/someone/spatial/elsewhere", tmp_path, **hub))
