"""The JSON from the Hub: the real client over HTTP against a local double of the Hub."""

from __future__ import annotations

import hashlib
import json
import os
import stat
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from raw_folder import Raw

REPO = "someone/OpenSpatialDataset"
FILE = "folder/entries.json"
URL = f"hf://datasets/{REPO}/{FILE}"


@dataclass
class Hub:
    """What the double serves and what it was asked.

    Attributes:
        content: the file.
        refuse: status to answer with instead, and the Hub's own name for the error.
        break_after: bytes after which a download's connection is closed; used up one by one.
        ranges: the Range header of each download, "" for none.
        tokens: the Authorization header of each request.
        elsewhere: address of the server that has the content; "": this one.
    """

    content: bytes = b""
    refuse: tuple[int, str] | None = None
    break_after: list[int] = field(default_factory=list)
    ranges: list[str] = field(default_factory=list)
    tokens: list[str | None] = field(default_factory=list)
    elsewhere: str = ""
    address: str = ""


def handler_for(hub: Hub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            """Quiet."""

        def do_HEAD(self) -> None:
            self.answer(body=False)

        def do_GET(self) -> None:
            self.answer(body=True)

        def answer(self, body: bool) -> None:
            if hub.refuse or not self.path.startswith(f"/datasets/{REPO}/resolve/main/{FILE}"):
                status, code = hub.refuse or (404, "EntryNotFound")
                self.send_response(status)
                self.send_header("X-Error-Code", code)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            hub.tokens.append(self.headers.get("Authorization"))
            if hub.elsewhere:
                self.send_response(302)
                self.send_header("Location", f"{hub.elsewhere}{self.path}")
                self.send_header("X-Linked-ETag", f'"{hashlib.sha256(hub.content).hexdigest()}"')
                self.send_header("X-Linked-Size", str(len(hub.content)))
                self.send_header("X-Repo-Commit", "c" * 40)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            start = 0
            if body:
                hub.ranges.append(self.headers.get("Range", ""))
                start = int(hub.ranges[-1].removeprefix("bytes=").rstrip("-") or 0)
            data = hub.content[start:]
            self.send_response(206 if start else 200)
            self.send_header("ETag", f'"{hashlib.sha256(hub.content).hexdigest()}"')
            self.send_header("X-Repo-Commit", "c" * 40)
            self.send_header("Content-Length", str(len(data)))
            if start:
                self.send_header("Content-Range", f"bytes {start}-{len(hub.content) - 1}/{len(hub.content)}")
            self.end_headers()
            if not body:
                return
            if hub.break_after:
                self.wfile.write(data[: hub.break_after.pop(0)])
                self.wfile.flush()
                self.close_connection = True
                self.connection.shutdown(2)
            else:
                self.wfile.write(data)

    return Handler


@pytest.fixture
def hub() -> Iterator[Hub]:
    yield from serve()


@pytest.fixture
def other_hub() -> Iterator[Hub]:
    yield from serve()


def serve() -> Iterator[Hub]:
    served = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler_for(served))
    served.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield served
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def raw(tmp_path: Path, hub: Hub) -> Raw:
    made = Raw(tmp_path / "raw", 400)
    made.add_images(1, 2, 3)
    hub.content = made.json.read_bytes()
    made.json.unlink()
    return made


def run(
    raw: Raw, hub: Hub, *overrides: str, url: str = URL, offline: str = "0", token: str | None = None
) -> subprocess.CompletedProcess[str]:
    scratch = raw.folder / "scratch"
    scratch.mkdir(exist_ok=True)
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "HUGGING"))}
    environment["HF_HUB_OFFLINE"] = offline
    environment |= {"HF_TOKEN": token} if token else {}
    environment |= {"HF_ENDPOINT": hub.address, "HF_HOME": str(raw.folder / "home"), "TMPDIR": str(scratch)}
    return raw.run(f"convert.json={url}", *overrides, env=environment)


def downloaded(folder: Path) -> list[bytes]:
    return [path.read_bytes() for path in folder.rglob("entries.json")]


def test_downloads_once_and_converts(raw: Raw, hub: Hub) -> None:
    done = run(raw, hub)
    assert done.returncode == 0, done.stderr
    assert len(raw.ids()) == 3
    assert downloaded(raw.folder / "scratch") == [hub.content]
    (own,) = (raw.folder / "scratch").glob("theworld-json-*")
    assert stat.S_IMODE(own.stat().st_mode) == 0o700
    raw.add_images(4)
    assert run(raw, hub).returncode == 0
    assert len(raw.ids()) == 4
    assert hub.ranges == [""]


def test_a_wiped_temporary_folder_costs_no_second_download(raw: Raw, hub: Hub) -> None:
    assert run(raw, hub).returncode == 0
    (path,) = (raw.folder / "scratch").rglob("entries.json")
    path.unlink()
    raw.add_images(4)
    assert run(raw, hub).returncode == 0
    assert len(raw.ids()) == 4
    assert hub.ranges == [""]


def test_goes_to_json_cache_when_set(raw: Raw, hub: Hub) -> None:
    cache = raw.folder / "cache"
    assert run(raw, hub, f"convert.json_cache={cache}").returncode == 0
    assert downloaded(cache) == [hub.content]
    assert downloaded(raw.folder / "scratch") == []


def test_a_new_version_on_the_hub_is_taken_up(raw: Raw, hub: Hub) -> None:
    assert run(raw, hub).returncode == 0
    entries = json.loads(hub.content)
    hub.content = json.dumps(entries + entries[:9]).encode()
    done = run(raw, hub)
    assert done.returncode == 0, done.stderr
    assert "id named more than once" in done.stdout
    assert downloaded(raw.folder / "scratch") == [hub.content]


def test_a_broken_download_goes_on_where_it_stopped(raw: Raw, hub: Hub) -> None:
    chunk = 10 << 20  # what the client writes at a time
    hub.content += b" " * (2 * chunk)
    hub.break_after = [chunk + 30_000] + [0] * 20
    done = run(raw, hub)
    assert done.returncode == 2
    assert done.stderr.count("error:") == 1
    assert "run again, it goes on where it stopped" in done.stderr
    hub.break_after, hub.ranges = [], []
    done = run(raw, hub)
    assert done.returncode == 0, done.stderr
    assert hub.ranges == [f"bytes={chunk}-"]
    assert downloaded(raw.folder / "scratch") == [hub.content]
    assert list((raw.folder / "scratch").rglob("*.part")) == []


def test_a_part_that_is_damaged_is_found_and_fetched_anew(raw: Raw, hub: Hub) -> None:
    chunk = 10 << 20
    hub.content += b" " * (2 * chunk)
    hub.break_after = [chunk + 30_000] + [0] * 20
    assert run(raw, hub).returncode == 2
    (part,) = (raw.folder / "scratch").rglob("*.part")
    content = bytearray(part.read_bytes())
    content[99] ^= 1
    part.write_bytes(content)
    hub.break_after = []
    done = run(raw, hub)
    assert done.returncode == 2
    assert "not what the Hub's hash says; run again" in done.stderr
    hub.ranges = []
    assert run(raw, hub).returncode == 0
    assert hub.ranges == [""]


def test_the_token_is_the_hubs_alone(raw: Raw, hub: Hub, other_hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    other_hub.content = hub.content
    hub.elsewhere = other_hub.address
    done = run(raw, hub, token="hf_secret")
    assert done.returncode == 0, done.stderr
    assert set(hub.tokens) == {"Bearer hf_secret"}
    assert other_hub.ranges == [""]
    assert set(other_hub.tokens) == {None}


def test_a_link_in_a_groups_folder_is_not_written_through(raw: Raw, hub: Hub) -> None:
    cache, own = raw.folder / "cache", raw.folder / "own"
    own.write_text("mine")
    cache.mkdir()
    state = hashlib.sha256(hashlib.sha256(hub.content).hexdigest().encode()).hexdigest()[:16]
    (cache / f".{FILE.replace('/', '-')}.{state}.part").symlink_to(own)
    assert run(raw, hub, f"convert.json_cache={cache}").returncode == 2
    assert own.read_text() == "mine"


@pytest.mark.parametrize(
    ("status", "code", "hint"),
    [
        (401, "RepoNotFound", "log in with huggingface-cli login or HF_TOKEN"),
        (403, "GatedRepo", "ask for it at https://huggingface.co/datasets/" + REPO),
        (404, "EntryNotFound", "check owner, name and file"),
        (404, "RepoNotFound", "check owner, name and file"),
    ],
)
def test_refusals_say_what_to_do(raw: Raw, hub: Hub, status: int, code: str, hint: str) -> None:
    hub.refuse = status, code
    done = run(raw, hub)
    assert done.returncode == 2
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert URL in line
    assert hint in line
    assert f"({status})" in line
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("offline", ["1", pytest.param("0", marks=pytest.mark.slow)])
def test_a_hub_out_of_reach_is_no_problem_once_downloaded(raw: Raw, hub: Hub, offline: str) -> None:
    """``offline`` 0: nothing answers at the address, and the client tries for 20 seconds."""
    assert run(raw, hub).returncode == 0
    raw.add_images(4)
    done = run(raw, Hub(address="http://127.0.0.1:9"), offline=offline)
    assert done.returncode == 0, done.stderr
    assert "out of reach" in done.stderr
    assert len(raw.ids()) == 4


def test_no_space_for_the_download_names_the_key(tmp_path: Path, raw: Raw, hub: Hub) -> None:
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(small)], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"needs the right to mount a tmpfs: {mounted.stderr.strip()}")
    try:
        done = run(raw, hub, f"convert.json_cache={small}")
    finally:
        subprocess.run(["umount", str(small)], check=True)
    assert len(hub.content) > 64 << 10
    assert done.returncode == 2
    assert "set convert.json_cache to a folder on a larger disk" in done.stderr
    assert hub.ranges == []


def test_json_lines_from_the_hub(raw: Raw, hub: Hub) -> None:
    hub.content = b"".join(json.dumps(one).encode() + b"\n" for one in json.loads(hub.content))
    assert run(raw, hub).returncode == 0
    assert len(raw.ids()) == 3


@pytest.mark.parametrize("url", ["hf://datasets/onlyname/file.json", "hf://models/a/b/c.json"])
def test_another_form_of_url(raw: Raw, hub: Hub, url: str) -> None:
    done = run(raw, hub, url=url)
    assert done.returncode == 2
    assert "hf://datasets/OWNER/NAME/FILE" in done.stderr
