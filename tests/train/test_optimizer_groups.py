"""Rates by part: who is in which group, what a step does with it, resumed exactly, refused where it cannot work."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.conftest import SMOKE_YAML
from tests.helpers.tensorboard import logged
from tests.train.test_train import losses, run_config, saved_state
from theworld.config.load import load_config
from theworld.errors import UserError
from theworld.model import load_model
from theworld.train.check_training import check_training
from theworld.train.optimizer_groups import norms_and_biases, parameter_groups
from theworld.train.run import train

GROUPS = "optimizer.groups={projector: {lr: 4.0e-3}, language: {lr: 1.0e-3, weight_decay: 1.0e-4}}"


def groups_of(*overrides: str) -> dict[str, dict[str, Any]]:
    config = load_config([SMOKE_YAML, *overrides])
    groups: Any = parameter_groups(config.optimizer, load_model(config.model))
    return {group["name"]: group for group in groups}


def test_each_weight_that_trains_is_in_the_group_of_its_part() -> None:
    config = load_config([SMOKE_YAML, "model.freeze.vision=false", "model.freeze.vae=false", GROUPS])
    model = load_model(config.model)
    groups: Any = parameter_groups(config.optimizer, model)
    assert [group["name"] for group in groups] == ["projector", "vision", "language", "vae"]
    members = {id(one): group["name"] for group in groups for one in group["params"]}
    assert len(members) == sum(one.requires_grad for one in model.parameters())
    body: Any = model.model
    for weight, part in (
        (body.world_projector.start, "projector"),
        (body.world_projector.end, "projector"),
        (body.multi_modal_projector.mm_input_projection_weight, "vision"),
        (model.get_input_embeddings().weight, "language"),
        (model.lm_head.weight, "language"),
    ):
        assert members[id(weight)] == part
    assert groups[0]["lr"] == 4.0e-3
    assert "lr" not in groups[1], "a part without settings has the optimizer's"


def test_norms_and_biases_are_spared_the_decay_by_an_option() -> None:
    groups = groups_of("optimizer.decay_norms_and_biases=false", "optimizer.weight_decay=1.0e-5", GROUPS)
    assert list(groups) == ["projector", "projector_no_decay", "language", "language_no_decay"]
    assert {group["weight_decay"] for name, group in groups.items() if name.endswith("_no_decay")} == {0.0}
    assert groups["language_no_decay"]["lr"] == groups["language"]["lr"]
    assert {one.ndim for one in groups["language_no_decay"]["params"]} == {1}
    assert {one.ndim for one in groups["language"]["params"]} == {2}
    model = load_model(load_config([SMOKE_YAML]).model)
    spared = norms_and_biases(model)
    assert "model.world_projector.start" not in spared
    assert {name.rpartition(".")[2] for name in spared if "world_projector" in name} == {"bias"}
    assert any("layernorm" in name for name in spared)
    assert any("world_encoder" in name and name.endswith("gamma") for name in spared)


def test_settings_that_a_resume_does_not_take_over_are_said(
    raw_sample: Path, mds_sample: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def run(batches: int, groups: str, *more: str) -> str:
        caplog.clear()
        settings = ("scheduler.t_warmup=2ba", "train_loader.num_workers=0", f"max_duration={batches}ba", *more)
        config = run_config(raw_sample, mds_sample, tmp_path, f"optimizer.groups={groups}", *settings)
        assert train(config) == 0
        return "".join(one.getMessage() for one in caplog.records if one.getMessage().startswith("optimizer: "))

    assert not run(1, "{projector: {lr: 4.0e-3}}")
    assert not run(2, "{projector: {lr: 4.0e-3}}")
    said = run(3, "{projector: {lr: 5.0e-3, weight_decay: 0.1}}", "optimizer.betas=[0.9, 0.99]")
    assert said == (
        "optimizer: it goes on with the checkpoint's settings: projector.lr=0.004 (the YAML has 0.005), "
        "projector.weight_decay=0.0 (the YAML has 0.1), projector.betas=[0.9, 0.95] (the YAML has [0.9, 0.99]), "
        "language.betas=[0.9, 0.95] (the YAML has [0.9, 0.99]); to change them begin a new run with load_path and "
        "load_weights_only=true"
    )
    rates = logged(tmp_path / "run", "lr/projector")
    assert max(rates.values()) == pytest.approx(4.0e-3)


def test_rates_follow_one_schedule_and_a_resumed_run_is_the_unbroken_one(
    raw_sample: Path, mds_sample: Path, tmp_path: Path
) -> None:
    def run(folder: str, batches: int, *more: str) -> Any:
        (tmp_path / folder).mkdir(exist_ok=True)
        settings = (GROUPS, "optimizer.decay_norms_and_biases=false", "scheduler.t_warmup=2ba", "scheduler.t_max=8ba")
        config = run_config(raw_sample, mds_sample, tmp_path / folder, *settings, *more, f"max_duration={batches}ba")
        assert train(config) == 0
        return config

    unbroken, broken = run("unbroken", 4), run("broken", 2)
    with pytest.raises(
        UserError, match=r"its optimizer has projector, projector_no_decay, language, language_no_decay"
    ):
        run("broken", 4, "optimizer.groups=null", "optimizer.decay_norms_and_biases=true")
    run("broken", 4)
    rates = {part: list(logged(broken.save_folder, f"lr/{part}").values()) for part in ("projector", "language")}
    assert rates["projector"] == pytest.approx([4 * rate for rate in rates["language"]])
    assert len(set(rates["language"])) == 4
    assert max(rates["language"]) == pytest.approx(1.0e-3)
    assert rates["language"] == list(logged(unbroken.save_folder, "lr/language").values())
    assert losses(broken.save_folder) == losses(unbroken.save_folder)
    states = [saved_state(config) for config in (unbroken, broken)]
    for name, weight in states[0]["model"].items():
        assert torch.equal(weight, states[1]["model"][name])
    (optimizer,) = states[1]["optimizers"].values()
    assert [group["weight_decay"] for group in optimizer["param_groups"]] == [0.0, 0.0, 1.0e-4, 0.0]


def test_a_group_of_no_rate_stays_where_it_is(raw_sample: Path, mds_sample: Path, tmp_path: Path) -> None:
    still = "optimizer.groups={language: {lr: 0.0}}"
    config = run_config(raw_sample, mds_sample, tmp_path, still, "max_duration=2ba", "scheduler.t_warmup=0ba")
    assert train(config) == 0
    before = load_model(config.model, seed=config.seed).state_dict()
    after = {name.removeprefix("model."): one for name, one in saved_state(config)["model"].items()}
    moved = {name for name, one in after.items() if not torch.equal(one, before[name])}
    assert moved == {name for name in before if "world_projector" in name}


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (
            ["optimizer.groups={vision: {lr: 1e-5}}"],
            r"groups\.vision: nothing of it trains, since model\.freeze\.vision",
        ),
        (["optimizer.groups={vsion: {lr: 1e-5}}"], r"groups\.vsion: no such part of the model; did you mean vision\?"),
        (["optimizer.groups={head: {lr: 1e-5}}"], "known are projector, vision, language, vae"),
        (
            ["optimizer.groups={projector: {lr: 1e-5}}", "model.enable_world=false"],
            "nothing of it trains, since model.enable_world is false",
        ),
        (["optimizer.groups={projector: 1e-5}"], "expected its settings"),
        (["optimizer.groups=[projector]"], "expected parts with their settings"),
        (["optimizer.groups={projector: {rate: 1e-5}}"], r"projector\.rate: unknown setting of a group"),
        (["optimizer.groups={projector: {lr: fast}}"], r"groups\.projector\.lr: 'fast'"),
        (["optimizer.decay_norms_and_biases=some"], "expected true or false"),
    ],
)
def test_what_cannot_work_is_one_line(overrides: list[str], says: str, mds_sample: Path) -> None:
    config = load_config([SMOKE_YAML, f"train_loader.dataset.remote={mds_sample}", *overrides])
    with pytest.raises(UserError, match=says):
        check_training(config, 1)


def test_a_setting_that_the_optimizer_does_not_have(raw_sample: Path, mds_sample: Path, tmp_path: Path) -> None:
    config = run_config(raw_sample, mds_sample, tmp_path, "optimizer.groups={projector: {momentum: 0.9}}")
    with pytest.raises(UserError, match=r"optimizer\.groups\.projector\.momentum: unknown setting"):
        train(config)
