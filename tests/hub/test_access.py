"""The look at token and repo before a run loads anything."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from hub_double import FINE_TOKEN, READ_TOKEN, WRITE_TOKEN, Fault, HubDouble
from hub_run import REPO

from tests.helpers.launcher import ROOT

CHECK = """
import sys
from theworld.errors import UserError
from theworld.hub.access import check_write_access
try:
    print("answered:", check_write_access(sys.argv[1], True))
except UserError as error:
    print("error:", error)
"""


def check(hub: HubDouble, folder: Path, token: str | None, repo: str = REPO, **more: str) -> str:
    """In a process of its own: the client reads its settings when it is imported."""
    command = [sys.executable, "-c", CHECK, repo]
    environment = {**hub.environment(folder, token), **more}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.count("\n") == 1, done.stdout
    assert not any(one in done.stdout + done.stderr for one in hub.tokens)
    return done.stdout.strip()


@pytest.mark.parametrize("token", [WRITE_TOKEN, FINE_TOKEN])
def test_a_token_that_may_write_makes_the_repo_private(hub: HubDouble, tmp_path: Path, token: str) -> None:
    assert check(hub, tmp_path, token) == "answered: True"
    assert hub.repos[REPO].private
    assert check(hub, tmp_path, token) == "answered: True"
    assert len(hub.repos) == 1


@pytest.mark.parametrize(
    ("token", "repo", "says"),
    [
        (None, REPO, "no token to upload"),
        (READ_TOKEN, REPO, "the token may only read"),
        ("hf_unknownunknownunknown", REPO, "does not accept the token (401)"),
        (WRITE_TOKEN, "another/spatial", "use someone/spatial or another token"),
    ],
)
def test_what_cannot_write_is_one_line(hub: HubDouble, tmp_path: Path, token: str | None, repo: str, says: str) -> None:
    printed = check(hub, tmp_path, token, repo)
    assert printed.startswith("error: hub.repo_id: ")
    assert says in printed
    assert not hub.repos


def test_a_fine_grained_token_without_the_right_is_one_line(hub: HubDouble, tmp_path: Path) -> None:
    scoped = hub.tokens[FINE_TOKEN]["auth"]["accessToken"]["fineGrained"]["scoped"]
    scoped[0]["permissions"] = ["repo.content.read"]
    assert "no right to write to repos of someone" in check(hub, tmp_path, FINE_TOKEN)


def test_offline_is_one_line(hub: HubDouble, tmp_path: Path) -> None:
    assert "HF_HUB_OFFLINE is set" in check(hub, tmp_path, WRITE_TOKEN, HF_HUB_OFFLINE="1")


def test_a_hub_that_does_not_answer_stops_nothing(hub: HubDouble, tmp_path: Path) -> None:
    hub.faults.append(Fault("GET /api/whoami-v2", 503, times=99))
    assert check(hub, tmp_path, WRITE_TOKEN) == "answered: False"
    assert check(hub, tmp_path, WRITE_TOKEN, HF_ENDPOINT="http://127.0.0.1:9") == "answered: False"
