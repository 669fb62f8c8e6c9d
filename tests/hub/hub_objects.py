"""What the double of the Hub stores and says: repositories, faults, answers, accounts, and git's and LFS's names."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import secrets
import threading
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, NoReturn

import yaml

USER = "someone"
WRITE_TOKEN = "hf_" + "writetoken" * 3 + "00"
READ_TOKEN = "hf_" + "readtoken" * 3 + "00000"
FINE_TOKEN = "hf_" + "finetoken" * 3 + "00000"
LFS_SUFFIXES = (".safetensors", ".png")
LARGEST_REGULAR = 10 * 1000 * 1000
WRITING_ROLES = ("admin", "write", "contributor")
BAD_TOKEN = "Invalid credentials in Authorization header"


@dataclass
class Commit:
    """One commit with the whole tree."""

    oid: str
    title: str
    files: dict[str, bytes]
    created: datetime
    message: str = ""
    author: str = USER


@dataclass
class Repo:
    """A model; ``commits`` are oldest first, and the first is empty."""

    private: bool
    commits: list[Commit]

    @property
    def head(self) -> Commit:
        return self.commits[-1]

    def add(self, title: str, files: dict[str, bytes], message: str = "", author: str = USER) -> Commit:
        """A new commit with this whole tree."""
        commit = Commit(secrets.token_hex(20), title, dict(files), datetime.now(UTC), message, author)
        self.commits.append(commit)
        return commit


@dataclass
class Fault:
    """What goes wrong with the next ``times`` requests that match.

    Attributes:
        match: a part of, or a regular expression found in, "METHOD path?query".
        action: ``drop`` closes the socket without doing anything, ``lose`` does all and then closes it,
            ``stall`` waits for ``release`` and then goes on as if nothing had been.
        reached: set when a request has met this fault, so that a test need not sleep.
    """

    match: str
    status: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    times: int = 1
    action: Literal["status", "drop", "stall", "lose"] = "status"
    body: bytes = b""
    release: threading.Event = field(default_factory=threading.Event)
    reached: threading.Event = field(default_factory=threading.Event)

    def meets(self, line: str) -> bool:
        return self.times > 0 and (self.match in line or re.search(self.match, line) is not None)


@dataclass
class Call:
    """A request as the endpoints see it."""

    path: str
    query: dict[str, list[str]]
    headers: Any
    body: bytes
    account: dict[str, Any] | None

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Answer:
    body: bytes = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)


class RefusalError(Exception):
    """An error answer, raised by an endpoint."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer.status)
        self.answer = answer


def jsonic(value: Any, status: int = 200, **headers: str) -> Answer:
    named = {name.replace("_", "-"): text for name, text in headers.items()}
    return Answer(json.dumps(value).encode(), status, {"Content-Type": "application/json; charset=utf-8", **named})


def refuse(status: int, message: str, code: str | None = None, **headers: str) -> NoReturn:
    """As the Hub does: the message in the body and in a header, and a code that the client knows."""
    codes = {"X_Error_Code": code} if code else {}
    raise RefusalError(jsonic({"error": message}, status, X_Error_Message=message, **codes, **headers))


def is_lfs(path: str, size: int) -> bool:
    """Empty files are never LFS: the client commits them as regular ones."""
    return size > 0 and (path.endswith(LFS_SUFFIXES) or size > LARGEST_REGULAR)


def blob_oid(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def pointer_of(data: bytes) -> bytes:
    """What git keeps instead of an LFS file."""
    return f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256(data)}\nsize {len(data)}\n".encode()


def stamp(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{moment.microsecond // 1000:03d}Z"


def front_matter(text: str) -> dict[str, Any]:
    """The YAML header of a README, empty without one; ValueError if it is no mapping."""
    found = re.match(r"\A---\r?\n(.*?)(?:\r?\n)?---\s*(?:\n|\Z)", text, re.DOTALL)
    try:
        value = yaml.safe_load(found[1]) if found else {}
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from error
    if value is not None and not isinstance(value, dict):
        raise ValueError("the metadata must be a mapping")
    return value or {}


def file_entry(path: str, data: bytes) -> dict[str, Any]:
    """A file as the tree endpoint lists it."""
    if not is_lfs(path, len(data)):
        return {"type": "file", "oid": blob_oid(data), "size": len(data), "path": path}
    pointer = pointer_of(data)
    lfs = {"oid": sha256(data), "size": len(data), "pointerSize": len(pointer)}
    return {"type": "file", "oid": blob_oid(pointer), "size": len(data), "lfs": lfs, "path": path}


def folder_entries(files: dict[str, bytes]) -> list[dict[str, Any]]:
    folders = {str(parent) for path in files for parent in Path(path).parents} - {"."}
    return [{"type": "directory", "oid": blob_oid(name.encode()), "size": 0, "path": name} for name in sorted(folders)]


def default_tokens() -> dict[str, dict[str, Any]]:
    """One token of each kind, all of the same user."""

    def account(role: str, **more: Any) -> dict[str, Any]:
        token = {"displayName": f"a {role} token", "role": role, "createdAt": "2025-01-01T00:00:00.000Z", **more}
        auth = {"type": "access_token", "accessToken": token}
        return {"type": "user", "id": "0" * 24, "name": USER, "fullname": "Some One", "orgs": [], "auth": auth}

    entity = {"_id": "0" * 24, "type": "user", "name": USER}
    scoped = [{"entity": entity, "permissions": ["repo.content.read", "repo.write"]}]
    fine = {"canReadGatedRepos": False, "global": [], "scoped": scoped}
    return {
        WRITE_TOKEN: account("write"),
        READ_TOKEN: account("read"),
        FINE_TOKEN: account("fineGrained", fineGrained=fine),
    }


def may(account: dict[str, Any], repo_id: str, permission: Literal["read", "write"]) -> bool:
    """Whether a token's scope and the user's role in the namespace allow this."""
    namespace = repo_id.split("/")[0]
    token = account["auth"]["accessToken"]
    if token["role"] == "fineGrained":
        wanted = {"repo.write"} if permission == "write" else {"repo.write", "repo.content.read"}
        scopes = token["fineGrained"]["scoped"]
        return any(wanted & set(s["permissions"]) and s["entity"]["name"] in (namespace, repo_id) for s in scopes)
    roles = {account["name"]: "admin", **{org["name"]: org.get("roleInOrg", "read") for org in account["orgs"]}}
    if permission == "read":
        return namespace in roles
    return token["role"] == "write" and roles.get(namespace) in WRITING_ROLES


def change(files: dict[str, bytes], blobs: dict[str, bytes], key: str, value: dict[str, Any]) -> None:
    """One line of a commit, done to a tree in place."""
    path = value["path"]
    if key == "file":
        data = base64.b64decode(value["content"])
        if is_lfs(path, len(data)):
            refuse(400, f"{path} must be stored with LFS")
        files[path] = data
    elif key == "lfsFile":
        if value["oid"] not in blobs:
            refuse(400, f"LFS pointer of {path} points to an object that does not exist: {value['oid']}")
        files[path] = blobs[value["oid"]]
    elif key in ("deletedFile", "deletedFolder"):
        folder = path.rstrip("/") + "/"
        doomed = [name for name in files if (name == path if key == "deletedFile" else name.startswith(folder))]
        if not doomed:
            refuse(404, f"A file with this name doesn't exist: {path}", "EntryNotFound")
        for name in doomed:
            del files[name]
    else:
        refuse(400, f"unknown operation {key}")


def ranged(data: bytes, wanted: str, headers: dict[str, str]) -> Answer:
    """All of it, or the part that a Range header names."""
    asked = re.fullmatch(r"bytes=(\d*)-(\d*)", wanted)
    if asked is None or asked[0] == "bytes=-":
        return Answer(data, 200, headers)
    first = int(asked[1]) if asked[1] else max(0, len(data) - int(asked[2]))
    last = min(int(asked[2]), len(data) - 1) if asked[1] and asked[2] else len(data) - 1
    if first > last:
        return Answer(b"", 416, {**headers, "Content-Range": f"bytes */{len(data)}"})
    return Answer(data[first : last + 1], 206, {**headers, "Content-Range": f"bytes {first}-{last}/{len(data)}"})
