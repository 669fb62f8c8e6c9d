"""Finding, fetching and refusing base models; the Hub is a server of this test, spoken to by the real client."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.helpers.launcher import Script
from theworld.errors import UserError
from theworld.model import load_model, load_processor
from theworld.model.base import resolve_gemma, resolve_vae
from theworld.model.tiny import EXPECTED_FILES, tiny_folder

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub(ThreadingHTTPServer):
    """Serves the tiny models as ``acme/gemma`` and ``acme/cosmos``; other names fail in ways of their own."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.folder = tiny_folder()
        self.fetched: Counter[str] = Counter()
        self.cut = False

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Answer(BaseHTTPRequestHandler):
    server: Hub

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""

    def refuse(self, status: int, code: str) -> None:
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        parts = self.path.strip("/").split("/")
        if parts[:2] == ["api", "models"]:
            listing = "/".join(parts[4:5]) == "tree"
            revision = (parts[5] if len(parts) > 5 else "main").partition("?")[0]
            self.info("/".join(parts[2:4]), revision, listing)
        else:
            self.file("/".join(parts[:2]), "/".join(parts[4:]))

    def info(self, repo: str, revision: str, listing: bool) -> None:
        if repo == "acme/absent":
            self.refuse(401, "RepoNotFound")
        elif revision not in ("main", COMMIT):
            self.refuse(404, "RevisionNotFound")
        elif repo == "acme/broken":
            self.refuse(418, "")
        elif repo == "acme/busy":
            self.refuse(503, "")
        else:
            folder = self.server.folder / repo.split("/")[1].replace("gated", "gemma")
            files = [str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file()]
            if repo == "acme/cosmos":
                files += ["transformer/diffusion_pytorch_model.safetensors", "safety_checker.safetensors"]
            info = {"id": repo, "sha": COMMIT, "siblings": [{"rfilename": name} for name in files]}
            tree = [{"type": "file", "path": name, "size": self.size(folder / name), "oid": COMMIT} for name in files]
            self.body(json.dumps(tree if listing else info).encode())

    def size(self, file: Path) -> int:
        return file.stat().st_size if file.exists() else 0

    def file(self, repo: str, name: str) -> None:
        if repo == "acme/gated":
            return self.refuse(401, "GatedRepo")
        file = self.server.folder / repo.split("/")[1] / name
        if not file.is_file():
            return self.refuse(404, "EntryNotFound")
        if self.command == "GET":
            self.server.fetched[name] += 1
        return self.body(file.read_bytes(), cut=self.server.cut and name.endswith(".safetensors"))

    def body(self, content: bytes, cut: bool = False) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("ETag", f'"{hash(content):x}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content[: len(content) // 2] if cut else content)


@pytest.fixture
def hub() -> Iterator[Hub]:
    with Hub() as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


RESOLVE = """
import sys
from theworld.errors import UserError
from theworld.model.base import resolve_gemma, resolve_vae
kind, name, revision = sys.argv[1:]
try:
    base = {"gemma": resolve_gemma, "vae": resolve_vae}[kind](name, revision or None)
    print(base.revision, base.folder)
except UserError as error:
    print("error:", error, error.exit_code)
"""


def start(hub: Hub | None, cache: Path, kind: str, name: str, revision: str = "", **more: str) -> subprocess.Popen[str]:
    """Resolve in a process of its own: the Hub's client reads its settings when it is imported."""
    settings = {
        "HF_HOME": str(cache),
        "HF_HUB_OFFLINE": "0",
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    }
    settings |= {"HF_ENDPOINT": hub.url} if hub else {}
    return subprocess.Popen(
        [sys.executable, "-c", RESOLVE, kind, name, revision],
        env={**os.environ, **settings, **more},
        stdout=subprocess.PIPE,
        text=True,
    )


def resolve(*args: object, **more: str) -> str:
    out, _ = start(*args, **more).communicate(timeout=120)  # type: ignore[arg-type]
    assert out.count("\n") == 1, out
    return out.strip()


def test_four_processes_of_a_node_fetch_each_file_once(hub, tmp_path):
    runs = [start(hub, tmp_path, "gemma", "acme/gemma") for _ in range(4)]
    printed = {run.communicate(timeout=120)[0] for run in runs}
    assert len(printed) == 1
    revision, folder = printed.pop().split()
    assert revision == COMMIT
    assert hub.fetched["model.safetensors"] == 1
    assert max(hub.fetched.values()) == 1
    assert (Path(folder) / "model.safetensors").read_bytes() == (
        tiny_folder() / "gemma" / "model.safetensors"
    ).read_bytes()


def test_of_cosmos_only_the_vae_is_fetched_and_offline_finds_it_again(hub, tmp_path):
    online = resolve(hub, tmp_path, "vae", "acme/cosmos", COMMIT)
    assert set(hub.fetched) == {"vae/config.json", "vae/diffusion_pytorch_model.safetensors"}
    assert resolve(hub, tmp_path, "vae", "acme/cosmos", COMMIT, HF_HUB_OFFLINE="1") == online


@pytest.mark.parametrize(
    ("name", "revision", "says", "code"),
    [
        (
            "acme/gated",
            "",
            "acme/gated is gated: accept its licence at https://huggingface.co/acme/gated and set HF_",
            2,
        ),
        ("acme/absent", "", "the Hub has no repo acme/absent, or it is private", 2),
        ("acme/gemma", "v9", "acme/gemma has no revision v9", 2),
        ("acme/broken", "", r"the Hub does not answer \(.*\b418 ", 2),
        ("acme/busy", "", r"download of acme/busy failed: .*\b503 ", 75),
    ],
)
def test_what_the_hub_refuses_is_one_line(hub, tmp_path, name, revision, says, code):
    printed = resolve(hub, tmp_path, "gemma", name, revision)
    assert printed.startswith("error: model.gemma: ")
    assert re.search(says, printed)
    assert printed.endswith(f" {code}")


def test_a_download_that_breaks_off_is_one_line_and_goes_on_later(hub, tmp_path):
    hub.cut = True
    printed = resolve(hub, tmp_path, "gemma", "acme/gemma")
    assert "error: model.gemma: download of acme/gemma failed" in printed
    assert printed.endswith(" 75")
    hub.cut = False
    assert resolve(hub, tmp_path, "gemma", "acme/gemma").startswith(COMMIT)


def test_offline_with_an_empty_cache_is_one_line(tmp_path):
    printed = resolve(None, tmp_path, "gemma", "acme/gemma", HF_HUB_OFFLINE="1")
    assert "not in the local Hub cache" in printed


def test_an_unreachable_hub_is_one_line(tmp_path):
    printed = resolve(None, tmp_path, "gemma", "acme/gemma", HF_ENDPOINT="http://127.0.0.1:9")
    assert printed.startswith("error: model.gemma: ")
    assert "the Hub does not answer" in printed


# --- folders -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["/no/such/folder", "./nowhere", "~/nowhere/at/all", "gemma", "builtin:small", "a/b/c"]
)
def test_a_name_that_is_neither_folder_nor_repo_is_refused(name):
    with pytest.raises(UserError, match="no such folder"):
        resolve_gemma(name)


@pytest.fixture
def own_gemma(tmp_path) -> Path:
    """A copy of the tiny Gemma to damage."""
    return Path(shutil.copytree(tiny_folder() / "gemma", tmp_path / "gemma"))


def test_a_folder_works_like_the_builtin(tiny_config, own_gemma):
    cfg = tiny_config(gemma=str(own_gemma), cosmos=str(tiny_folder() / "cosmos"))
    model = load_model(cfg)
    builtin = load_model(tiny_config())
    assert model.config.base["gemma"] == builtin.config.base["gemma"] | {"name": str(own_gemma)}
    expected = dict(builtin.named_parameters())
    assert all(torch.equal(parameter, expected[name]) for name, parameter in model.named_parameters())


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda folder: (folder / "config.json").unlink(), "holds no config.json"),
        (lambda folder: (folder / "model.safetensors").unlink(), "holds no .safetensors file"),
        (lambda folder: os.truncate(folder / "model.safetensors", 300_000), "is cut short"),
        (lambda folder: os.truncate(folder / "model.safetensors", 1000), "is cut short"),
        (lambda folder: os.truncate(folder / "model.safetensors", 0), "is cut short"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"<html>" * 99), "is cut short"),
        (
            lambda folder: (folder / "model.safetensors.index.json").write_text(
                json.dumps({"weight_map": {"x": "model-00002-of-00002.safetensors"}})
            ),
            "lacks model-00002-of-00002.safetensors",
        ),
    ],
)
def test_a_damaged_folder_is_refused_with_its_name(own_gemma, damage, says):
    damage(own_gemma)
    with pytest.raises(UserError, match=says) as caught:
        resolve_gemma(str(own_gemma))
    assert str(own_gemma) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_weight_that_gemma_lacks_or_has_too_many_is_an_error(tiny_config, own_gemma):
    file = own_gemma / "model.safetensors"
    weights = load_file(file)
    name = "language_model.model.norm.weight"
    save_file({key: value for key, value in weights.items() if key != name}, file, metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"1 weights missing .*language_model.norm.weight"):
        load_model(tiny_config(gemma=str(own_gemma)))
    save_file(weights | {"stray": torch.zeros(2)}, file, metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"1 weights unexpected .*stray"):
        load_model(tiny_config(gemma=str(own_gemma)))


def test_a_weight_that_the_vae_lacks_is_an_error(tiny_config, tmp_path):
    cosmos = Path(shutil.copytree(tiny_folder() / "cosmos", tmp_path / "cosmos"))
    file = cosmos / "vae" / "diffusion_pytorch_model.safetensors"
    weights = load_file(file)
    del weights["encoder.conv_in.weight"]
    save_file(weights, file)
    with pytest.raises(UserError, match=r"model.cosmos.*encoder.conv_in.weight"):
        load_model(tiny_config(cosmos=str(cosmos)))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"_class_name": "AutoencoderKL"}, "holds a AutoencoderKL; expected an AutoencoderKLWan"),
        ({"z_dim": 48}, "latents of 48 channels at stride 8"),
        ({"dim_mult": [1, 2, 4, 4, 4], "temperal_downsample": [False, True, True, True]}, "16 channels at stride 16"),
    ],
)
def test_another_vae_is_refused(tiny_config, tmp_path, change, says):
    cosmos = Path(shutil.copytree(tiny_folder() / "cosmos", tmp_path / "cosmos"))
    file = cosmos / "vae" / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(UserError, match=says):
        load_model(tiny_config(cosmos=str(cosmos)))


def test_another_model_is_refused(tiny_config, own_gemma):
    file = own_gemma / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"model_type": "llama"}))
    with pytest.raises(UserError, match=r"is a llama; expected a Gemma 3"):
        load_model(tiny_config(gemma=str(own_gemma)))


def test_a_text_only_gemma_is_refused_before_its_processor_is_looked_for(tiny_config, own_gemma):
    """As the released 1B: the text's configuration alone, and no image processor."""
    settings = json.loads((own_gemma / "config.json").read_text())["text_config"]
    (own_gemma / "config.json").write_text(json.dumps(settings | {"model_type": "gemma3_text"}))
    for name in ("preprocessor_config.json", "processor_config.json"):
        (own_gemma / name).unlink(missing_ok=True)
    for load in (load_processor, load_model):
        with pytest.raises(
            UserError, match=r"is a gemma3_text, which has no vision, as the 1B; expected .*\(4B, 12B, 27B\)"
        ):
            load(tiny_config(gemma=str(own_gemma)))


def test_an_embedding_without_spare_rows_is_refused(tiny_config, own_gemma):
    file = own_gemma / "config.json"
    config = json.loads(file.read_text())
    config["text_config"]["vocab_size"] = len(load_processor(tiny_config()).tokenizer) - 1
    file.write_text(json.dumps(config))
    with pytest.raises(UserError, match=r"the embedding has .* rows and the world tokens need"):
        load_model(tiny_config(gemma=str(own_gemma)))


# --- the built-in ------------------------------------------------------------------------------------------------

BUILD = "from theworld.model.tiny import tiny_folder; print(tiny_folder())"


def build(folder: Path) -> Script:
    folder.mkdir(exist_ok=True)
    return Script(BUILD, environment={**os.environ, "TMPDIR": str(folder), "OMP_NUM_THREADS": "1"})


def printed(run: Script) -> str:
    return run.end().stdout.strip()


@pytest.mark.slow
def test_processes_that_race_to_build_the_tiny_models_agree(tmp_path):
    runs = [build(tmp_path / "one") for _ in range(3)]
    folders = {printed(run) for run in runs}
    assert len(folders) == 1
    folder = Path(folders.pop())
    assert os.listdir(folder.parent) == [folder.name]
    again = Path(printed(build(tmp_path / "two")))
    for name in EXPECTED_FILES:
        assert (folder / name).read_bytes() == (again / name).read_bytes(), name


@pytest.mark.slow
def test_a_tiny_folder_that_a_cleaner_has_half_emptied_is_mended(tmp_path):
    folder = Path(printed(build(tmp_path)))
    (folder / "gemma" / "config.json").unlink()
    shutil.rmtree(folder / "cosmos")
    assert Path(printed(build(tmp_path))) == folder
    assert all((folder / name).is_file() for name in EXPECTED_FILES)
    assert resolve_vae(str(folder / "cosmos")).folder == folder / "cosmos" / "vae"
