"""Bad input to the trainer: one line that names the key, exit code 2, no traceback."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest

from theworld import cli
from theworld.commands.train import main as train
from theworld.config.load import load_config

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (
            ["train_loader.dataset.remot=x"],
            "unknown key train_loader.dataset.remot; did you mean train_loader.dataset.remote?",
        ),
        (["batch_size=8"], "batch_size: it is global_train_batch_size now"),
        (["learning_rate=1e-4"], "it is optimizer.lr now"),
        (["model.load_in_4bit=true"], "weights in 4 bits cannot train, adapters on them can; set model.lora={}"),
        (["load_in_4bit=true"], "load_in_4bit: model.load_in_4bit=true keeps the base's layers under model.lora in 4"),
        (["model.lora={quantize: nf4}"], "unknown key model.lora.quantize: model.load_in_4bit=true keeps"),
        (["model.quantization_config={load_in_4bit: true}"], "unknown key model.quantization_config: model.load_in"),
        (["model.load_in_8bit=true"], "unknown key model.load_in_8bit: 8 bits cannot be; model.load_in_4bit=true"),
        (
            ["model.load_in_4bit=true", "model.lora={}", "algorithms={swa: {}}"],
            "algorithms.swa: not with model.load_in_4bit",
        ),
        pytest.param(
            ["model.load_in_4bit=true", "model.lora={}", "model.freeze.language=true"],
            "needs bitsandbytes, which is not installed: pip install -c constraints.txt 'theworld[qlora]'",
            marks=pytest.mark.skipif(find_spec("bitsandbytes") is not None, reason="bitsandbytes is installed"),
        ),
        (["seed=many"], "seed: Value 'many'"),
        (
            ["train_loader.dataset.remote=nowhere"],
            "train_loader.dataset.remote: no folder nowhere; run convert/to_mds.py",
        ),
        (["train_loader.dataset.remote=null", "train_loader.dataset.local=null"], "set remote"),
        (["global_train_batch_size=0"], "global_train_batch_size: 0 is too small"),
        (["device_train_microbatch_size=some"], "neither a number nor auto"),
        (["device_train_microbatch_size=auto"], "device_train_microbatch_size: auto needs a GPU"),
        (["precision=amp_bf16"], "precision: amp_bf16 needs a GPU"),
        (["model.attn_implementation=flex_attention"], "model.attn_implementation: flex_attention needs a GPU"),
        (["precision=half"], "precision: 'half' is not known"),
        (["max_duration=soon"], "max_duration: 'soon' is not a time"),
        (["save_folder=null"], "save_folder: not set"),
        (["load_path=nothing.pt"], "load_path: no such checkpoint: nothing.pt"),
        (["load_weights_only=true"], "load_weights_only: needs load_path"),
        (["save_num_checkpoints_to_keep=0"], "would delete every checkpoint"),
        (["model.projector.mode=patchy"], "model.projector.mode"),
        (["model.projector.patch=5"], "model.projector.patch"),
        (["model.enable_world=false", "model.freeze.language=true"], "nothing"),
        (["optimizer.name=adamm"], "optimizer.name: 'adamm' is not known"),
        (["optimizer.learning=1"], "unknown"),
        (["scheduler.t_wamup=1ba"], "scheduler.t_wamup: unknown setting"),
        (["callbacks.speed_monitr={}", "model.gemma=/no/such/folder"], "did you mean speed_monitor"),
        (["train_loader.dataset.max_seq_len=24"], "max_seq_len"),
        (["train_loader.dataset.num_canonical_nodes=0"], "train_loader.dataset.num_canonical_nodes: 0"),
        (["train_loader.world=another"], "train_loader.world: 'another' is neither own nor shuffled"),
        (
            ["train_loader.world=shuffled", "global_train_batch_size=1", "device_train_microbatch_size=1"],
            "train_loader.world: shuffled needs 2 samples of each rank's batch",
        ),
        (["train_loader.dataset.shuffle_block_size=0"], "train_loader.dataset.shuffle_block_size: 0"),
        (["train_loader.dataset.cache_limit=lots"], "train_loader.dataset.cache_limit: 'lots' is not a size"),
        (["parallelism_config.fsdp2={}"], "parallelism_config.fsdp2: unknown"),
        (["compile_config={mood: fast}"], "compile_config.mood: unknown setting; known are fullgraph"),
        (["compile_config={backend: inducter}"], "compile_config.backend: 'inducter' is not known"),
        (["model.gemma=/no/such/folder"], "model.gemma"),
    ],
)
def test_one_line_that_names_the_key(
    overrides: list[str], expected: str, mds_sample: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = [f"train_loader.dataset.remote={mds_sample}", f"save_folder={tmp_path / 'run'}"]
    settings.append(f"train_loader.dataset.local={tmp_path / 'cache'}")
    code = cli.run(train, [str(ROOT / "yamls" / "smoke.yaml"), *settings, *overrides], in_ranks=True)
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert code == 2
    assert len(errors) == 1
    assert expected in errors[0]


def test_batch_that_does_not_divide_by_the_ranks(
    mds_sample: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "3")
    code = cli.run(
        train, [str(ROOT / "yamls" / "smoke.yaml"), f"train_loader.dataset.remote={mds_sample}"], in_ranks=True
    )
    assert code == 2
    assert "8 does not divide by 3 ranks; use 6 or 9" in capsys.readouterr().err


@pytest.mark.parametrize("content", ["key: [unclosed", "- a list", "\xff\xfe"])
def test_yaml_that_is_none(content: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "broken.yaml"
    path.write_text(content, encoding="latin-1")
    assert cli.run(train, [str(path)], in_ranks=True) == 2
    assert str(path) in capsys.readouterr().err


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(train, ["--help"], in_ranks=True) == 0
    assert "composer" in capsys.readouterr().out


def test_default_yaml_is_the_checkouts_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert load_config(["seed=3"]).run_name == "theworld-spatial"
    (tmp_path / "yamls").mkdir()
    (tmp_path / "yamls" / "spatial.yaml").write_text((ROOT / "yamls" / "smoke.yaml").read_text())
    assert load_config([]).run_name == "smoke"


@pytest.mark.parametrize("when", ["init", "fit_start"])
def test_out_of_memory_while_the_trainer_is_built_and_while_it_runs(
    when: str, mds_sample: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / f"full_at_{when}.py").write_text(
        "import torch\nfrom composer.core import Callback\n\n\nclass Full(Callback):\n"
        f"    def {when}(self, state, logger):\n        raise torch.OutOfMemoryError('CUDA out of memory.')\n"
    )
    settings = [
        f"train_loader.dataset.remote={mds_sample}",
        f"train_loader.dataset.local={tmp_path / 'cache'}",
        f"save_folder={tmp_path / 'run'}",
        f"code_paths=[{tmp_path / f'full_at_{when}.py'}]",
        f"callbacks={{'full_at_{when}:Full': {{}}}}",
    ]
    assert cli.run(train, [str(ROOT / "yamls" / "smoke.yaml"), *settings], in_ranks=True) == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert "out of GPU memory: lower device_train_microbatch_size; or set" in errors[0]
