"""Where the base models come from: a folder, ``builtin:tiny``, or the Hugging Face Hub.

Files of the Hub are fetched by huggingface_hub into its cache. It locks each file during the download, so that one rank
of a node fetches it while the others wait.
"""

from __future__ import annotations

import errno
import hashlib
import json
import struct
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open

from theworld.compat import network_errors
from theworld.errors import NotNow, UserError, first_line
from theworld.file_limits import too_large

BUILTIN_TINY = "builtin:tiny"

GEMMA_TEXT_FILES = ["*.json", "*.jinja", "tokenizer.model"]
"""Configuration and processor of Gemma: some 40 MB."""
GEMMA_FILES = [*GEMMA_TEXT_FILES, "*.safetensors"]
VAE_CONFIG = ["vae/config.json"]
VAE_FILES = ["vae/config.json", "vae/*.safetensors"]
"""All that is needed of Cosmos: never its transformer, text encoder or safety checker."""
FINGERPRINT_PARTS = 64
FINGERPRINT_BYTES = 4096
"""How many places of a weights file are read, and how many bytes at each."""


@dataclass(frozen=True)
class Base:
    """A base model on this machine: its name in the YAML, the commit it came from (None for folders), its folder."""

    name: str
    revision: str | None
    folder: Path

    def record(self) -> dict[str, str | None]:
        """Name, revision and fingerprint, by which a checkpoint finds these weights again."""
        return {"name": self.name, "revision": self.revision, "fingerprint": fingerprint(self.folder)}


def resolve_gemma(name: str, revision: str | None = None, weights: bool = True) -> Base:
    """The folder of a Gemma 3; without ``weights`` only its configuration and processor.

    Raises:
        UserError: not there, not allowed, or not whole.
    """
    return resolve_base("model.gemma", name, revision, GEMMA_FILES if weights else GEMMA_TEXT_FILES, "gemma")


def resolve_vae(name: str, revision: str | None = None, weights: bool = True) -> Base:
    """The folder of the VAE inside a Cosmos repo; without ``weights`` only its configuration.

    Raises:
        UserError: not there, not allowed, or not whole.
    """
    base = resolve_base("model.cosmos", name, revision, VAE_FILES if weights else VAE_CONFIG, "cosmos", part="vae")
    return Base(base.name, base.revision, base.folder / "vae")


def resolve_base(
    key: str, name: str, revision: str | None, patterns: list[str], tiny_part: str, part: str = "."
) -> Base:
    """Find or fetch a base model.

    Args:
        key: the YAML key that named it, for messages.
        name: a folder, ``builtin:tiny``, or ``OWNER/NAME`` on the Hub.
        revision: branch, tag or commit on the Hub.
        patterns: the files that are needed.
        tiny_part: sub-folder of the built-in tiny models.
        part: sub-folder that must hold a ``config.json``.

    Raises:
        UserError: one line: what is wrong with which repo or folder, and what to do.
    """
    if name == BUILTIN_TINY:
        from theworld.model.tiny import tiny_folder

        base = Base(name, None, tiny_folder() / tiny_part)
    elif Path(name).expanduser().is_dir():
        base = Base(name, None, Path(name).expanduser())
    elif name.startswith(("/", ".", "~", "builtin:")) or name.count("/") != 1:
        raise UserError(f"{key}: {name}: no such folder, and not a Hub repo of the form OWNER/NAME")
    else:
        folder = download(key, name, revision, patterns)
        base = Base(name, folder.name, folder)
    check_folder(key, base.folder / part, weights=any(pattern.endswith(".safetensors") for pattern in patterns))
    return base


def download(key: str, repo: str, revision: str | None, patterns: list[str]) -> Path:
    """The Hub cache's snapshot folder (its name is the commit) with the files of ``repo`` that match ``patterns``."""
    from huggingface_hub import errors, snapshot_download

    at = f" at revision {revision}" if revision else ""
    page = f"https://huggingface.co/{repo}"
    try:
        folder = Path(snapshot_download(repo, revision=revision, allow_patterns=patterns))
    except errors.GatedRepoError as error:
        raise UserError(f"{key}: {repo} is gated: accept its licence at {page} and set HF_TOKEN") from error
    except errors.RevisionNotFoundError as error:
        raise UserError(f"{key}: {repo} has no revision {revision}; see {page}/tree/main") from error
    except errors.RepositoryNotFoundError as error:
        raise UserError(
            f"{key}: the Hub has no repo {repo}, or it is private: check the name, and set HF_TOKEN if it is yours"
        ) from error
    except errors.LocalEntryNotFoundError as error:
        why = first_line(error.__cause__ or error)
        if is_overloaded(error.__cause__):
            raise NotNow(f"{key}: download of {repo}{at} failed: {why}; run again to go on") from error
        raise UserError(
            f"{key}: {repo}{at} is not in the local Hub cache and the Hub does not answer ({why}); "
            "fetch it where there is a network, or name a folder"
        ) from error
    except errors.HFValidationError as error:
        raise UserError(f"{key}: {repo}: no such folder, and not a Hub repo: {first_line(error)}") from error
    except (*network_errors(), OSError) as error:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS):
            raise UserError(
                f"{key}: cannot store {repo} in the Hub cache: {error.strerror}; set HF_HOME to a folder with room"
            ) from error
        answered = getattr(error, "response", None) is not None
        kind = UserError if answered and not is_overloaded(error) else NotNow
        raise kind(f"{key}: download of {repo}{at} failed: {first_line(error)}; run again to go on") from error
    for path in folder.rglob("*"):
        fault = too_large(path.relative_to(folder).as_posix(), path.stat().st_size)
        if fault is not None:
            raise UserError(f"{key}: {repo}{at}: {fault}; it is not read")
    return folder


def is_overloaded(error: BaseException | None) -> bool:
    """Whether a server has answered, but with nothing that says anything about the request."""
    status = getattr(getattr(error, "response", None), "status_code", 0)
    return status == 429 or status >= 500


def check_folder(key: str, folder: Path, weights: bool) -> None:
    """Refuse a folder without its configuration, or with weights that are missing or cut short.

    Raises:
        UserError: names the folder or file.
    """
    if not (folder / "config.json").is_file():
        raise UserError(f"{key}: {folder} holds no config.json; expected a model's folder as from_pretrained reads it")
    if not weights:
        return
    files = sorted(folder.glob("*.safetensors"))
    for index in folder.glob("*.safetensors.index.json"):
        named = set(json.loads(index.read_text())["weight_map"].values())
        for name in sorted(named - {file.name for file in files}):
            raise UserError(f"{key}: {folder} lacks {name}, which {index.name} names; fetch the model again")
    if not files:
        raise UserError(f"{key}: {folder} holds no .safetensors file; fetch the model again, or convert its weights")
    for file in files:
        try:
            safe_open(file, framework="numpy")
        except SafetensorError as error:
            raise UserError(f"{key}: {file} is cut short or damaged ({first_line(error)}); fetch it again") from error


def fingerprint(folder: Path) -> str | None:
    """Identifies weights wherever they lie: a hash of each safetensors file's size, header and parts of its data.

    Only some hundred kB of each file are read. None if there is no such file.
    """
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        return None
    digest = hashlib.sha256()
    for file in files:
        size = file.stat().st_size
        digest.update(f"{file.name} {size}\n".encode())
        with open(file, "rb") as stream:
            (length,) = struct.unpack("<Q", stream.read(8))
            digest.update(stream.read(length))
            for part in range(FINGERPRINT_PARTS):
                stream.seek(8 + length + (size - 8 - length) * part // FINGERPRINT_PARTS)
                digest.update(stream.read(FINGERPRINT_BYTES))
    return digest.hexdigest()[:32]
