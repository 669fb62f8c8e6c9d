"""The variants of an ablation, and the one command that trains, asks and compares them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.launcher import LONGEST, ROOT
from theworld.ablation import evaluations, training, variants_of
from theworld.checkpoint.on_disk import newest_whole_checkpoint
from theworld.checkpoint.weights import read_saved_weights
from theworld.errors import UserError

SHIPPED = ROOT / "yamls" / "ablation"
TRAINED = ("model.freeze.language=false", "save_folder=runs/ablation")


def settings(mds: Path, *more: str) -> list[str]:
    return [str(ROOT / "yamls/smoke.yaml"), f"train_loader.dataset.remote={mds}", *TRAINED, *more]


def test_each_shipped_variant_changes_one_thing(tmp_path: Path) -> None:
    found = {variant.name: variant.config for variant in variants_of(settings(tmp_path), SHIPPED)}
    gemma, world, shuffled, untrained = found.values()
    assert list(found) == sorted(found)
    assert not gemma.model.enable_world
    assert world.model.enable_world
    assert (world.train_loader.world, shuffled.train_loader.world) == ("own", "shuffled")
    assert (world.model.freeze.projector, untrained.model.freeze.projector) == (False, True)
    assert {config.save_folder for config in found.values()} == {f"runs/ablation/{name}" for name in found}
    for config in (gemma, shuffled, untrained):
        assert config.seed == world.seed
        assert config.max_duration == world.max_duration
        assert config.train_loader.dataset == world.train_loader.dataset
        assert config.optimizer == world.optimizer


def test_where_nothing_of_gemma_trains_it_is_asked_as_it_is(tmp_path: Path) -> None:
    gemma, world, *_ = variants_of(settings(tmp_path, "model.freeze.language=true"), SHIPPED)
    assert not gemma.trains
    assert world.trains
    first, second, third, *_ = evaluations([gemma, world], ["--bench", "holdout"], tmp_path, ranks=1)
    assert "builtin:tiny" in first.command
    assert world.config.save_folder in second.command
    assert [one.name for one in (second, third)] == [world.name, f"{world.name}, asked with shuffled worlds"]


def test_ranks_go_through_the_launcher(tmp_path: Path) -> None:
    variant = variants_of(settings(tmp_path), SHIPPED)[0]
    assert training(variant, ranks=4)[1:4] == ("-n", "4", "recipes/train.py")


def test_a_folder_without_variants_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no variants"):
        variants_of(settings(tmp_path), tmp_path)
    (tmp_path / "odd.yaml").write_text("model: {no_such_key: 1}")
    staged = tmp_path / "staged.yml"
    staged.write_text((ROOT / "yamls/smoke.yaml").read_text().replace("max_duration:", "# max_duration:"))
    with pytest.raises(UserError, match="an ablation compares single trainings"):
        variants_of([str(staged), "stages=[{name: a, max_duration: 1ep}]"], tmp_path)
    with pytest.raises(UserError, match="no_such_key"):
        variants_of(settings(tmp_path), tmp_path)


@pytest.mark.slow
def test_one_command_trains_asks_and_compares(mds_sample: Path, tmp_path: Path) -> None:
    """Two variants; started again, it trains and asks nothing anew and prints the same."""
    variants = tmp_path / "variants"
    variants.mkdir()
    (variants / "gemma.yaml").write_text("model: {enable_world: false, freeze: {language: true}}")
    (variants / "world.yaml").write_text("model: {freeze: {language: false, projector: true}}")
    command = [sys.executable, "recipes/ablate.py", "yamls/smoke.yaml", f"train_loader.dataset.remote={mds_sample}"]
    command += [f"save_folder={tmp_path / 'run'}", "max_duration=2ba", "train_loader.num_workers=0"]
    command += ["train_loader.world=shuffled", f"--data={mds_sample}", "--limit=40", f"--variants={variants}"]
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    tables = []
    for _ in range(2):
        done = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=2 * LONGEST, check=False
        )
        assert done.returncode == 0, done.stderr[-5000:]
        tables.append(done.stdout[done.stdout.index("overall %") :])
    assert tables[0] == tables[1]
    assert "finished already: 2ba is done" in done.stderr
    assert "first: gemma, second: world" in tables[0]
    report = json.loads((tmp_path / "run" / "evaluations" / "world-shuffled.json").read_text())
    assert len(report["rows"]) == 40
    assert all(row["prediction"].strip() for row in report["rows"])

    # The projector did not train; it is in the checkpoint all the same, since no base model has it.
    checkpoint = newest_whole_checkpoint(tmp_path / "run" / "world")
    assert checkpoint is not None
    assert any(".world_projector." in name for name in read_saved_weights(str(checkpoint.path)).shapes)
