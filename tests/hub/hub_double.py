"""A local double of the Hugging Face Hub's models: the real ``huggingface_hub`` client talks to it over HTTP."""

from __future__ import annotations

import json
import os
import re
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from hub_objects import (
    BAD_TOKEN,
    FINE_TOKEN,
    READ_TOKEN,
    USER,
    WRITE_TOKEN,
    Answer,
    Call,
    Commit,
    Fault,
    RefusalError,
    Repo,
    blob_oid,
    change,
    default_tokens,
    file_entry,
    folder_entries,
    front_matter,
    is_lfs,
    jsonic,
    may,
    ranged,
    refuse,
    sha256,
    stamp,
)

__all__ = ["FINE_TOKEN", "READ_TOKEN", "USER", "WRITE_TOKEN", "Commit", "Fault", "HubDouble", "Repo"]


class HubDouble:
    """The server and all it stores; tests read and change the attributes directly.

    Attributes:
        tokens: token -> answer of whoami; a token deleted here is as one that expired.
        repos: "namespace/name" -> repository.
        blobs: sha256 -> LFS content, whether or not a commit names it.
        faults: the first one that meets a request is applied to it, and leaves after its ``times``.
        requests: "METHOD path?query" as they came in.
        uploaded_blobs: how often each LFS object was sent in full.
        bytes_per_second: speed at which uploads are read.

    Args:
        port: where it listens; 0: where there is room.
    """

    def __init__(self, port: int = 0) -> None:
        self.tokens = default_tokens()
        self.repos: dict[str, Repo] = {}
        self.blobs: dict[str, bytes] = {}
        self.faults: list[Fault] = []
        self.requests: list[str] = []
        self.uploaded_blobs: Counter[str] = Counter()
        self.bytes_per_second: float | None = None
        self.lock = threading.RLock()
        self._stalled: list[Fault] = []
        self._server = _Server(("127.0.0.1", port), _Handler)
        self._server.hub = self
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    @property
    def port(self) -> int:
        return self._server.server_address[1]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> HubDouble:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        for fault in [*self.faults, *self._stalled]:
            fault.release.set()
        self._server.shutdown()
        self._server.server_close()

    def environment(self, home: Path, token: str | None = WRITE_TOKEN) -> dict[str, str]:
        """For a process whose client shall talk to this double and keep its cache in ``home``."""
        kept = {name: text for name, text in os.environ.items() if not name.startswith(("HF_", "HUGGING_FACE_"))}
        hub = {"HF_ENDPOINT": self.url, "HF_HUB_DISABLE_XET": "1", "HF_HUB_OFFLINE": "0", "HF_HOME": str(home)}
        quiet = {"HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
        return {**kept, **hub, **quiet, "NO_PROXY": "127.0.0.1", **({"HF_TOKEN": token} if token else {})}

    def add_repo(self, repo_id: str, private: bool = False) -> Repo:
        with self.lock:
            repo = self.repos[repo_id] = Repo(private, [])
            repo.add("initial commit", {})
            return repo

    def add_commit(self, repo_id: str, title: str, files: dict[str, bytes]) -> Commit:
        """A commit of somebody else with this whole tree; its LFS content counts as uploaded."""
        with self.lock:
            self.blobs.update({sha256(data): data for path, data in files.items() if is_lfs(path, len(data))})
            return self.repos[repo_id].add(title, files)

    def meet(self, line: str) -> Fault | None:
        """Note a request and take the fault it runs into."""
        with self.lock:
            self.requests.append(line)
            fault = next((fault for fault in self.faults if fault.meets(line)), None)
            if fault is not None:
                fault.times -= 1
                if fault.times == 0:
                    self.faults.remove(fault)
                self._stalled.append(fault)
                fault.reached.set()
            return fault

    def answer(self, method: str, call: Call) -> Answer:
        for wanted, pattern, endpoint in ROUTES:
            found = re.fullmatch(pattern, call.path)
            if found and method == wanted:
                with self.lock:
                    return endpoint(
                        self, call, **{name: unquote(text or "") for name, text in found.groupdict().items()}
                    )
        return jsonic({"error": f"the double has no {method} {call.path}"}, 404)

    def readable(self, call: Call, repo_id: str) -> Repo:
        """A repository that may not be read looks as if it were not there; without token it is a 401."""
        repo = self.repos.get(repo_id)
        if repo is not None and (not repo.private or (call.account and may(call.account, repo_id, "read"))):
            return repo
        return refuse(404 if call.account else 401, "Repository not found", "RepoNotFound")

    def writable(self, call: Call, repo_id: str) -> Repo:
        if call.account is None:
            refuse(401, "Invalid username or password.")
        repo = self.readable(call, repo_id)
        if not may(call.account, repo_id, "write"):
            refuse(403, "Forbidden: you must use a write token to upload to a repository")
        return repo

    def revision(self, repo: Repo, rev: str) -> Commit:
        for commit in repo.commits:
            if rev == commit.oid or (rev == "main" and commit is repo.head):
                return commit
        return refuse(404, f"Invalid rev id: {rev}", "RevisionNotFound")

    def whoami(self, call: Call) -> Answer:
        if call.account is None:
            refuse(401, "Invalid username or password.")
        return jsonic(call.account)

    def create(self, call: Call) -> Answer:
        if call.account is None:
            refuse(401, "Invalid username or password.")
        asked = call.json()
        namespace = asked.get("organization") or call.account["name"]
        repo_id = f"{namespace}/{asked['name']}"
        if asked.get("type") not in (None, "model"):
            refuse(400, "the double has models only")
        if not may(call.account, repo_id, "write"):
            refuse(403, f'You don\'t have the rights to create a model under the namespace "{namespace}"')
        found = {"url": f"{self.url}/{repo_id}", "name": repo_id}
        if repo_id in self.repos:
            return jsonic({"error": "You already created this model repo", **found}, 409)
        # huggingface_hub 0.36 asks with the first, 2 with the second.
        self.add_repo(repo_id, bool(asked.get("private")) or asked.get("visibility") == "private")
        return jsonic({**found, "id": "0" * 24})

    def info(self, call: Call, repo_id: str, rev: str = "") -> Answer:
        repo = self.readable(call, repo_id)
        commit = self.revision(repo, rev or "main")
        siblings = []
        for path, data in sorted(commit.files.items()):
            entry = file_entry(path, data)
            lfs = {"lfs": {**entry["lfs"], "sha256": entry["lfs"]["oid"]}} if "lfs" in entry else {}
            sizes = {"size": entry["size"], "blobId": entry["oid"], **lfs} if "blobs" in call.query else {}
            siblings.append({"rfilename": path, **sizes})
        dates = {"createdAt": stamp(repo.commits[0].created), "lastModified": stamp(commit.created)}
        counts = {"gated": False, "disabled": False, "downloads": 0, "likes": 0, "tags": []}
        who = {"_id": "0" * 24, "id": repo_id, "modelId": repo_id, "author": repo_id.split("/")[0]}
        return jsonic({**who, "sha": commit.oid, "private": repo.private, **dates, **counts, "siblings": siblings})

    def tree(self, call: Call, repo_id: str, rev: str, folder: str = "") -> Answer:
        files = self.revision(self.readable(call, repo_id), rev).files
        listed = [*folder_entries(files), *(file_entry(path, data) for path, data in sorted(files.items()))]
        if folder:
            listed = [entry for entry in listed if entry["path"].startswith(folder + "/")]
            if not listed:
                refuse(404, f"{folder} does not exist on {rev}", "EntryNotFound")
        if call.query.get("recursive", [""])[0].lower() not in ("true", "1"):
            listed = [entry for entry in listed if "/" not in entry["path"][len(folder) :].strip("/")]
        return jsonic(listed)

    def paths_info(self, call: Call, repo_id: str, rev: str) -> Answer:
        files = self.revision(self.readable(call, repo_id), rev).files
        wanted = set(parse_qs(call.body.decode()).get("paths", []))
        listed = [*folder_entries(files), *(file_entry(path, data) for path, data in files.items())]
        return jsonic([entry for entry in listed if entry["path"] in wanted])

    def history(self, call: Call, repo_id: str, rev: str) -> Answer:
        repo = self.readable(call, repo_id)
        upto = repo.commits.index(self.revision(repo, rev)) + 1
        listed = []
        for commit in reversed(repo.commits[:upto]):
            text = {"title": commit.title, "message": commit.message}
            listed.append(
                {"id": commit.oid, **text, "authors": [{"user": commit.author}], "date": stamp(commit.created)}
            )
        return jsonic(listed)

    def validate_yaml(self, call: Call) -> Answer:
        try:
            front_matter(call.json()["content"])
        except ValueError as error:
            return jsonic({"errors": [{"message": str(error)}], "warnings": []}, 400)
        return jsonic({"errors": [], "warnings": []})

    def preupload(self, call: Call, repo_id: str, rev: str) -> Answer:
        repo = self.writable(call, repo_id)
        files = self.revision(repo, rev).files
        listed = []
        for asked in call.json()["files"]:
            mode = "lfs" if is_lfs(asked["path"], asked["size"]) else "regular"
            entry = {"path": asked["path"], "uploadMode": mode, "shouldIgnore": False}
            present = files.get(asked["path"])
            if present is not None:
                entry["oid"] = sha256(present) if is_lfs(asked["path"], len(present)) else blob_oid(present)
            listed.append(entry)
        return jsonic({"files": listed, "commitOid": repo.head.oid})

    def lfs_batch(self, call: Call, repo_id: str) -> Answer:
        self.writable(call, repo_id)
        listed = []
        for asked in call.json()["objects"]:
            upload = {"href": f"{self.url}/_upload/{asked['oid']}"}
            verify = {"href": f"{self.url}/{repo_id}.git/info/lfs/verify"}
            actions = {} if asked["oid"] in self.blobs else {"actions": {"upload": upload, "verify": verify}}
            listed.append({"oid": asked["oid"], "size": asked["size"], **actions})
        return jsonic({"transfer": "basic", "objects": listed})

    def upload(self, call: Call, oid: str) -> Answer:
        """As a signed URL of a store: without a token."""
        if sha256(call.body) != oid:
            refuse(400, "the content has another sha256")
        self.blobs[oid] = call.body
        self.uploaded_blobs[oid] += 1
        return Answer(headers={"ETag": f'"{oid}"'})

    def verify(self, call: Call, repo_id: str) -> Answer:
        self.writable(call, repo_id)
        asked = call.json()
        if len(self.blobs.get(asked["oid"], b"")) != asked["size"]:
            refuse(404, "the object was not uploaded")
        return jsonic({"success": True})

    def commit(self, call: Call, repo_id: str, rev: str) -> Answer:
        repo = self.writable(call, repo_id)
        if self.revision(repo, rev) is not repo.head:
            refuse(400, "commits go to a branch")
        files = dict(repo.head.files)
        header: dict[str, Any] = {}
        for line in call.body.splitlines():
            item = json.loads(line)
            if item["key"] == "header":
                header = item["value"]
                if (header.get("parentCommit") or repo.head.oid) != repo.head.oid:
                    refuse(412, "A commit has happened since. Please refresh and try again.")
            else:
                change(files, self.blobs, item["key"], item["value"])
        author = call.account["name"] if call.account else USER
        made = repo.add(header["summary"], files, header.get("description", ""), author)
        url = f"{self.url}/{repo_id}/commit/{made.oid}"
        return jsonic({"success": True, "commitOid": made.oid, "commitUrl": url, "hookOutput": ""})

    def resolve(self, call: Call, repo_id: str, rev: str, path: str) -> Answer:
        commit = self.revision(self.readable(call, repo_id), rev)
        data = commit.files.get(path)
        if data is None:
            refuse(404, "Entry not found", "EntryNotFound", X_Repo_Commit=commit.oid)
        headers = {"X-Repo-Commit": commit.oid, "ETag": f'"{blob_oid(data)}"', "Accept-Ranges": "bytes"}
        if is_lfs(path, len(data)):
            oid = f'"{sha256(data)}"'
            headers |= {"ETag": oid, "X-Linked-Etag": oid, "X-Linked-Size": str(len(data))}
        headers["Content-Type"] = "application/octet-stream"
        return ranged(data, call.headers.get("Range", ""), headers)


MODEL = r"/api/models/(?P<repo_id>[^/]+/[^/]+)"
REV = r"/(?P<rev>[^/]+)"
GIT = r"/(?P<repo_id>[^/]+/[^/]+)\.git/info/lfs"
ROUTES: list[tuple[str, str, Callable[..., Answer]]] = [
    ("GET", r"/api/whoami-v2", HubDouble.whoami),
    ("POST", r"/api/repos/create", HubDouble.create),
    ("POST", r"/api/validate-yaml", HubDouble.validate_yaml),
    ("GET", MODEL, HubDouble.info),
    ("GET", MODEL + r"/revision" + REV, HubDouble.info),
    ("GET", MODEL + r"/tree" + REV + r"(?:/(?P<folder>.+))?", HubDouble.tree),
    ("POST", MODEL + r"/paths-info" + REV, HubDouble.paths_info),
    ("GET", MODEL + r"/commits" + REV, HubDouble.history),
    ("POST", MODEL + r"/preupload" + REV, HubDouble.preupload),
    ("POST", MODEL + r"/commit" + REV, HubDouble.commit),
    ("POST", GIT + r"/objects/batch", HubDouble.lfs_batch),
    ("POST", GIT + r"/verify", HubDouble.verify),
    ("PUT", r"/_upload/(?P<oid>[0-9a-f]{64})", HubDouble.upload),
    ("GET", r"/(?P<repo_id>[^/]+/[^/]+)/resolve" + REV + r"/(?P<path>.+)", HubDouble.resolve),
]


class _Server(ThreadingHTTPServer):
    hub: HubDouble
    request_queue_size = 64

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Silent: clients are killed on purpose."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def _handle(self) -> None:
        hub = self.server.hub
        fault = hub.meet(f"{self.command} {self.path}")
        action = fault.action if fault else None
        if action == "drop":
            return self._close()
        if fault and action == "stall":
            fault.release.wait()
        body = self._read(hub.bytes_per_second if self.command == "PUT" else None)
        if body is None:
            return self._close()
        if fault and action == "status":
            answer = Answer(fault.body, fault.status or 500, fault.headers)
        else:
            answer = self._answer(body)
        return self._close() if action == "lose" else self._send(answer)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = _handle

    def _answer(self, body: bytes) -> Answer:
        hub = self.server.hub
        parts = urlsplit(self.path)
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        try:
            if token and token not in hub.tokens:
                refuse(401, BAD_TOKEN)
            call = Call(parts.path, parse_qs(parts.query), self.headers, body, hub.tokens.get(token))
            return hub.answer("GET" if self.command == "HEAD" else self.command, call)
        except RefusalError as refusal:
            return refusal.answer
        except Exception as error:
            return jsonic({"error": f"the double failed: {error!r}"}, 500)

    def _read(self, speed: float | None) -> bytes | None:
        """The body, or nothing if the client went away within it."""
        length = int(self.headers.get("Content-Length") or 0)
        step = 1 << 20 if speed is None else max(1, min(1 << 16, int(speed / 20)))
        body = bytearray()
        while len(body) < length:
            piece = self.rfile.read(min(step, length - len(body)))
            if not piece:
                return None
            body += piece
            if speed is not None:
                time.sleep(len(piece) / speed)
        return bytes(body)

    def _send(self, answer: Answer) -> None:
        self.send_response(answer.status)
        for name, text in {"Content-Length": str(len(answer.body)), **answer.headers}.items():
            self.send_header(name, text)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer.body)

    def _close(self) -> None:
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)
