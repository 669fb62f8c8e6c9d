"""What is shown and kept: without credentials, and without what could steer a terminal."""

from __future__ import annotations

import logging
import os
import subprocess
import sys

import pytest

from theworld import cli
from theworld.errors import UserError
from theworld.plain_text import hide_secrets, plain, without_secrets

SECRETS = [
    ("https://user:pa55word@host/path", "pa55word"),
    ("s3://AKIA123:se/cr+et=@bucket/set", "se/cr+et="),
    ("s3://AKIA123:se@cret@bucket/set", "cret@"),
    ("https://t0ken@host/x", "t0ken"),
    ("http://127.0.0.1:8080/x?X-Amz-Signature=abc123&y=1", "abc123"),
    ("AWS_SECRET_ACCESS_KEY=abc/123", "abc/123"),
    ("loggers.wandb.api_key=abc123: unknown", "abc123"),
    ("Bearer hf_abcdefghij", "hf_abcdefghij"),
]
HARMLESS = [
    "hf://OWNER/NAME@main: no such revision",
    "http://127.0.0.1:8080/a@b",
    "max_duration=1ep, 12 tokens=5",
    "mail@host, s3://bucket/set",
]


@pytest.mark.parametrize(("text", "secret"), SECRETS)
def test_credentials_in_values_are_hidden(text: str, secret: str) -> None:
    assert secret not in hide_secrets(text)
    assert secret not in hide_secrets(f"error: {text}: no such place")
    assert without_secrets({"a": [{"b": text}]}) == {"a": [{"b": hide_secrets(text)}]}


@pytest.mark.parametrize("text", HARMLESS)
def test_other_text_stays(text: str) -> None:
    assert hide_secrets(text) == text


def test_control_characters_are_gone_and_lines_stay() -> None:
    assert plain("\x1b[31mred\x07\x9b2J\r\u202eabc\ttab\nline") == "�[31mred��2J��abc\ttab\nline"


def failing(error: Exception) -> int:
    def main(argv: list[str]) -> int:
        logging.getLogger("any").warning("asked %s", SECRETS[0][0])
        raise error

    return cli.run(main, [])


def test_lines_errors_and_tracebacks_of_a_command_are_plain(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    assert failing(UserError(f"{SECRETS[1][0]}: \x1b[2Jrefused")) == 2
    assert failing(RuntimeError(f"{SECRETS[0][0]}: \x1b[2Jrefused")) == 1
    cli.say(f"{SECRETS[0][0]} \x1b[2J")
    shown = "".join(capsys.readouterr())
    assert "asked https://<hidden>@host/path" in shown
    assert "error: s3://<hidden>@bucket/set: �[2Jrefused\n" in shown
    assert "error: RuntimeError: https://<hidden>@host/path" in shown
    assert not any(secret in shown for secret in ("pa55word", "se/cr+et", "\x1b"))


def test_a_rank_says_its_own_error_with_its_number(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setattr(cli, "ranks_have_met", lambda: True)
    shared = UserError("of all")
    shared.on_all_ranks = True

    def main(argv: list[str]) -> int:
        raise shared if argv else UserError("its own")

    assert cli.run(main, ["shared"], in_ranks=True) == 2
    assert cli.run(main, [], in_ranks=True) == 2
    assert capsys.readouterr().err == "error: rank 1: its own\n"


ALONE = """
import os
import sys

from theworld import cli
from theworld.errors import UserError


def main(argv):
    assert "RANK" not in os.environ
    raise UserError("seen")


sys.exit(cli.run(main, []))
"""


def test_other_commands_know_no_ranks() -> None:
    """In a process of its own: here a test before this one may have made the process one of ranks."""
    environment = {**os.environ, "RANK": "3", "WORLD_SIZE": "abc"}
    done = subprocess.run([sys.executable, "-c", ALONE], env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (2, "error: seen\n")


@pytest.mark.parametrize(("name", "value"), [("WORLD_SIZE", "abc"), ("WORLD_SIZE", "0"), ("RANK", "-1"), ("RANK", "")])
def test_a_number_of_ranks_that_is_none_is_one_line(
    name: str, value: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    assert cli.run(lambda argv: cli.world_size(), [], in_ranks=True) == 2
    assert f"error: {name}: {value!r} in the environment is not a number of ranks" in capsys.readouterr().err
