"""The double answers as the real client expects."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from hub_double import HubDouble

CLIENT = """
import sys
from pathlib import Path
from huggingface_hub import HfApi, hf_hub_download

folder, api, repo = Path(sys.argv[1]), HfApi(), "someone/model"
api.create_repo(repo, private=True, exist_ok=True)
api.create_repo(repo, private=True, exist_ok=True)
api.upload_folder(repo_id=repo, folder_path=folder, commit_message="first")
(folder / "old.txt").unlink()
(folder / "new.txt").write_text("new")
api.upload_folder(repo_id=repo, folder_path=folder, commit_message="second", delete_patterns="*")
api.upload_folder(repo_id=repo, folder_path=folder, commit_message="nothing new", delete_patterns="*")
commits = api.list_repo_commits(repo)
assert [commit.title for commit in commits] == ["second", "first", "initial commit"], commits
assert api.model_info(repo).sha == commits[0].commit_id
for name in ("README.md", "new.txt", "deep/weights.safetensors"):
    assert Path(hf_hub_download(repo, name)).read_bytes() == (folder / name).read_bytes(), name
assert api.file_exists(repo, "old.txt", revision=commits[1].commit_id) and not api.file_exists(repo, "old.txt")
"""


def test_a_folder_goes_up_and_comes_back(hub: HubDouble, tmp_path: Path) -> None:
    """Twice: the second commit brings a file and takes another away; LFS content is sent once."""
    files = {"README.md": b"---\nlicense: mit\n---\n# Model\n", "old.txt": b"old"}
    weights = {"deep/weights.safetensors": bytes(range(256)) * 100}
    for name, data in {**files, **weights}.items():
        (tmp_path / "folder" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "folder" / name).write_bytes(data)
    command = [sys.executable, "-c", CLIENT, str(tmp_path / "folder")]
    environment = hub.environment(tmp_path / "home")
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    first, second = hub.repos["someone/model"].commits[1:]
    assert first.files == {**files, **weights}
    assert second.files == {"README.md": files["README.md"], "new.txt": b"new", **weights}
    assert list(hub.uploaded_blobs.values()) == [1]
