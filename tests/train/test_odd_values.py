"""Whatever is written behind a key: a configuration, or one line; never a traceback."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.conftest import ROOT, SMOKE_YAML
from theworld.config.load import known_keys, load_config
from theworld.data.shards.convert_settings import check_settings as check_convert
from theworld.download.download_settings import check_settings as check_download
from theworld.errors import UserError
from theworld.model.check_model import check_model_config
from theworld.train.check_training import check_training

ODD = (
    *("", "null", "true", "x", "0", "-1", "0.5", "1e999", "-.inf", ".nan", "9" * 400, "0x10", "1_0", "2026-11-28"),
    *("[]", "{}", "[1,[2]]", "{a: {b: 1}}", "{1: 2}", "{x: 5}", "0.9,0.95", "'", "[", "${oops}", "${oc.env:NOPE}"),
    *("${oc.env:", "???", "\x00", "a\nb", "\U0001f600", "../..", "s3://", "hf://", "https://u:p@h", "0ba", "30sec"),
    *("0.5ep", "1ba", "*", "!!python/object/apply:os.system [id]", "module:Class", "SIGKILL", "{name: 5}", "1kb"),
)
SAID = [
    ("max_duration=0.5ep", "max_duration: '0.5ep' is no whole number, 1 or more, of ep, ba, sp, tok"),
    ("max_duration=30sec", "max_duration: '30sec' is no whole number, 1 or more, of"),
    ("log_interval=0ba", "log_interval: '0ba' is no whole number, 1 or more, of ep, ba;"),
    ("save_interval=0ba", "save_interval: '0ba' is no whole number"),
    ("optimizer.betas=0.9,0.95", "expected two numbers from 0 up to 1: optimizer.betas=[0.9,0.95]"),
    ("optimizer.name=adamm", "optimizer.name: 'adamm' is not known; did you mean adam"),
    ("callbacks={speed_monitr: {}}", "callbacks: 'speed_monitr' is not known; did you mean speed_monitor or"),
    ("callbacks.lr_monitor=5", "callbacks.lr_monitor: 5: expected its settings, for example lr_monitor: {}"),
    ("convert=5", "convert: 5: is a section with keys of its own: convert.KEY=VALUE"),
    ("train_loader.dataset=3", "train_loader.dataset: 3: is a section with keys of its own"),
    ("preemption.signals=SIGTERM", "preemption.signals: expected a list: preemption.signals=[ONE,TWO]"),
    ("preemption.signals=[SIGKILL]", "SIGKILL: no signal that can be caught"),
]


def answer(override: str, data: Path) -> str | None:
    """What all checks of a command line say before anything heavy is imported; None if they pass."""
    try:
        config = load_config([SMOKE_YAML, f"train_loader.dataset.remote={data}", "save_folder=run", override])
        check_training(config, 1)
        check_model_config(config.model)
        check_convert(config.convert)
        check_download(config)
    except UserError as error:
        return str(error)
    return None


@pytest.mark.parametrize(("override", "line"), SAID)
def test_common_mistakes_are_answered(override: str, line: str, tmp_path: Path) -> None:
    said = answer(override, tmp_path)
    assert said is not None
    assert line in said


@pytest.mark.slow
@settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(key=st.sampled_from(sorted(known_keys())), value=st.sampled_from(ODD) | st.text(max_size=8))
@example(key="algorithms", value="[]")
@example(key="optimizer", value="{name: 5}")
def test_an_odd_value_is_a_value_or_one_line(key: str, value: str, tmp_path: Path) -> None:
    said = answer(f"{key}={value}", tmp_path)
    assert said is None or said.strip()


OF_THE_SEED = [
    "num_world_steps",
    "max_world_steps",
    "max_steps",
    "save_safetensors",
    "output_dir",
    "eval_steps",
    "eval_batch_size",
    "do_eval",
    "eval_dataset_path",
    "log_to_wandb",
    "wandb_project",
    "wandb_run_name",
    "pin_memory",
    "persistent_workers",
    "streaming",
    "question_template",
    "hf_token",
    "hub_strategy",
    "dataset_name",
    "learning_rate",
]


@pytest.mark.parametrize("key", OF_THE_SEED)
def test_a_key_of_the_version_before_is_answered(key: str, tmp_path: Path) -> None:
    said = answer(f"{key}=1", tmp_path)
    assert said is not None
    assert said.startswith(f"command line: unknown key {key}: ")


def test_the_names_are_those_of_the_registry() -> None:
    from theworld.train import registry
    from theworld.train.check_values import KNOWN

    tables = (registry.OPTIMIZERS, registry.SCHEDULERS, registry.ALGORITHMS, registry.CALLBACKS, registry.LOGGERS)
    assert [set(names) for names in KNOWN.values()] == [set(table) for table in tables]


BEFORE_TORCH = """
import json
import os
import sys

from theworld.commands.to_mds import command as convert
from theworld.commands.train import command as train

for value in json.loads(sys.argv[1]):
    name, _, setting = value.partition("=")
    os.environ.pop("WORLD_SIZE", None)
    if name == "WORLD_SIZE":
        os.environ[name] = setting
    given = [] if name == "WORLD_SIZE" else [value]
    codes = [train(sys.argv[2:] + given)] + ([convert(sys.argv[2:] + given)] if name == "convert" else [])
    print(json.dumps([value, codes, "torch" in sys.modules]))
"""


def test_mistakes_end_with_exit_code_2_before_torch_is_imported(tmp_path: Path) -> None:
    values = [override for override, _ in SAID] + ["WORLD_SIZE=abc", "seed=many", "oops=1"]
    settings = [SMOKE_YAML, f"train_loader.dataset.remote={tmp_path}", f"save_folder={tmp_path / 'run'}"]
    command = [sys.executable, "-c", BEFORE_TORCH, json.dumps(values), *settings]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    said = [json.loads(line) for line in done.stdout.splitlines()]
    assert said == [[value, [2, 2] if value == "convert=5" else [2], False] for value in values]
    lines = done.stderr.splitlines()
    assert len(lines) == len(values) + 1
    assert all(line.startswith("error: ") for line in lines)
