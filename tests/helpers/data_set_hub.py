"""A local double of the Hugging Face Hub with one data set of one parquet file, for the real clients over HTTP."""

from __future__ import annotations

import json
import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tests.conftest import ROOT

NAME = "me/set"
SHA = "c0ffee" * 6 + "beef"


@dataclass
class Served:
    """What is served, and what was asked for.

    Attributes:
        sha: the commit that every revision is.
        content: its one file.
        asked: what it was asked for.
    """

    sha: str = SHA
    content: bytes = b""
    asked: list[str] = field(default_factory=list)
    endpoint: str = ""

    @property
    def file(self) -> dict[str, Any]:
        return {"type": "file", "path": "data/train.parquet", "size": len(self.content), "oid": self.sha}

    def environment(self, folder: Path) -> dict[str, str]:
        """Of a process whose clients talk to this double, and keep what they fetch in the folder."""
        return {
            **os.environ,
            "HF_ENDPOINT": self.endpoint,
            "HF_HUB_OFFLINE": "0",
            "HF_HOME": str(folder / "home"),
            "TMPDIR": str(folder),
            "PYTHONPATH": str(ROOT),
        }


@contextmanager
def served() -> Iterator[Served]:
    """The double, as long as this is open."""
    made = Served()
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler_for(made))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    made.endpoint = f"http://127.0.0.1:{server.server_port}"
    try:
        yield made
    finally:
        server.shutdown()
        server.server_close()


def handler_for(served: Served) -> type[BaseHTTPRequestHandler]:
    """What answers as the Hub does."""

    class Hub(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            served.asked.append(f"{self.command} {path}")
            sha, file = served.sha, served.file
            if re.fullmatch(rf"/api/datasets/{NAME}(/revision/({sha}|main|v2))?", path):
                siblings = [{"rfilename": file["path"]}]
                self.give({"id": NAME, "sha": sha, "siblings": siblings, "tags": [], "private": False})
            elif re.fullmatch(rf"/api/datasets/{NAME}/tree/{sha}(/data)?", path):
                folder = {"type": "directory", "path": "data", "oid": "2" * 40, "size": 0}
                self.give([file] if path.endswith("/data") or "recursive=True" in self.path else [folder])
            elif path == f"/api/datasets/{NAME}/paths-info/{sha}":
                length = int(self.headers.get("Content-Length", 0))
                self.give([file] if b"train.parquet" in self.rfile.read(length) else [])
            elif path == f"/datasets/{NAME}/resolve/{sha}/data/train.parquet":
                self.give_file()
            else:
                self.answer(404, b"{}", {"X-Error-Code": "EntryNotFound"})

        do_POST = do_HEAD = do_GET

        def give(self, value: Any) -> None:
            self.answer(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

        def give_file(self) -> None:
            content = served.content
            part = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
            first, last = (int(part[1]), min(int(part[2]), len(content) - 1)) if part else (0, len(content) - 1)
            headers = {"ETag": f'"{served.sha}"', "X-Repo-Commit": served.sha, "Accept-Ranges": "bytes"}
            if part:
                headers["Content-Range"] = f"bytes {first}-{last}/{len(content)}"
            self.answer(206 if part else 200, content[first : last + 1], headers)

        def answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    return Hub
