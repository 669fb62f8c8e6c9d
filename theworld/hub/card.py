"""The model card: where the weights come from, what was trained on what, how to load them."""

from __future__ import annotations

import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import ModelCard, ModelCardData

from theworld.checkpoint.weights import RECORD
from theworld.config.of_run import read_run_config, setting
from theworld.model.base import BUILTIN_TINY

PICTURE = "loss.png"
DATA_SET = "a8cheng/OpenSpatialDataset"
PACKAGES = ("mosaicml", "mosaicml-streaming", "torch", "transformers", "diffusers", "safetensors")
HYPERPARAMETERS = (
    "max_duration",
    "global_train_batch_size",
    "precision",
    "seed",
    "optimizer",
    "scheduler",
    "algorithms",
    "train_loader.dataset.max_seq_len",
    "train_loader.dataset.draw_bboxes",
    "train_loader.expected_samples",
    "model.world_image_size",
    "model.projector",
    "model.lora",
    "model.load_in_4bit",
)
"""Keys of the configuration that are shown: none of them can hold a secret or a path."""


def write_card(out: Path, repo: str, whole: dict[str, Any], weights: list[str], config: Path) -> None:
    """Write ``README.md`` and the loss curve.

    Args:
        out: folder of the upload.
        repo: ``OWNER/NAME``.
        whole: the checkpoint's content.
        weights: names of the weights in it.
        config: the run's ``config.yaml``; need not be there.
    """
    state = whole["state"]
    record = json.loads(state[RECORD])
    points = loss_points(state)
    if points:
        draw_loss(points, out / PICTURE)
    sections = [
        f"# {repo.partition('/')[2]}",
        "TheWorld, Gemma 3 fused with the world tokens of the Cosmos VAE, trained with Composer and Streaming.",
        "## How to load it",
        loading_lines(repo),
        peft_lines(repo, record["bases"].get("gemma", {}).get("form")) if record.get("lora") else "",
        "This repo holds the weights that were trained. The others are taken from the base models at the revisions "
        "below; the licence of Gemma has to be accepted on the Hub once."
        if record["trained"]
        else "",
        "## Base models",
        table(("part", "model", "revision"), [base_row(part, base) for part, base in record["bases"].items()]),
        "## What was trained",
        table(("part", "weights in this repo", "trained here"), list(parts(weights, set(record["trained"])))),
        "Every other part is frozen: as in the base models, to the bit.",
        "## Data",
        data_lines(state["dataset_state"]["train"]),
        "## Training",
        progress_lines(state["timestamp"]["Timestamp"]),
        f"![training loss]({PICTURE})" if points else "",
        "```yaml\n" + shown_config(config) + "```",
        "## Versions",
        table(("package", "version"), [(name, version(name)) for name in PACKAGES]),
    ]
    names = [base["name"] for base in record["bases"].values() if is_public(base.get("name"))]
    data = ModelCardData(
        license="gemma",
        library_name="transformers",
        pipeline_tag="image-text-to-text",
        base_model=names or None,  # pyright: ignore[reportArgumentType]
        datasets=[DATA_SET],
        tags=["theworld", "spatial-reasoning", "gemma3", "cosmos"],
    )
    text = "\n\n".join(section for section in sections if section)
    ModelCard(f"---\n{data.to_yaml()}\n---\n\n{text}\n").save(out / "README.md")


def loading_lines(repo: str) -> str:
    return (
        "```python\n"
        "from theworld.model import TheWorldForConditionalGeneration, TheWorldProcessor\n"
        f'model = TheWorldForConditionalGeneration.from_pretrained("{repo}")\n'
        f'processor = TheWorldProcessor.from_pretrained("{repo}")\n'
        "```"
    )


def peft_lines(repo: str, form: str | None) -> str:
    """How the adapters of a run are put on a base that is loaded already, in the form that it had in training."""
    how = f", the layers of the parts with adapters in 4 bits ({form})" if form else ""
    return (
        "The adapters alone, on a TheWorld that is loaded already (a plain Gemma 3 where the run had no world)"
        f"{how}:\n\n"
        "```python\n"
        "from peft import PeftModel\n"
        f'model = PeftModel.from_pretrained(base, "{repo}")\n'
        "```"
    )


def is_public(name: str | None) -> bool:
    """Whether a base is a repo of the Hub, and neither a folder nor built in."""
    return bool(name) and name != BUILTIN_TINY and name.count("/") == 1 and not name.startswith((".", "/", "~"))


def base_row(part: str, base: dict[str, Any]) -> tuple[str, str, str]:
    """A folder's path is its owner's affair: only its last part is shown, with the fingerprint of its weights."""
    name = str(base.get("name"))
    if base.get("form"):
        part = f"{part} ({base['form']})"
    if is_public(name) or name == BUILTIN_TINY:
        return part, name, str(base.get("revision") or "-")
    return part, f"a folder, {Path(name).name}", f"fingerprint {base.get('fingerprint')}"


def parts(weights: list[str], trained: set[str]) -> list[tuple[str, str, str]]:
    """Rows: part of the model, how many of its weights are in the repo, how many of those were trained in this run."""
    known = {
        "world_projector": "world projector",
        "world_encoder": "Cosmos VAE encoder",
        "vision_tower": "vision tower",
        "multi_modal_projector": "Gemma's own projector",
        "language_model": "language model",
        "lm_head": "language model",
    }
    counts: dict[str, list[int]] = {}
    for name in weights:
        part = next((title for piece, title in known.items() if f".{piece}." in name), "other")
        count = counts.setdefault(part, [0, 0])
        count[0] += 1
        count[1] += name in trained
    return [(part, str(total), str(here)) for part, (total, here) in counts.items()]


def data_lines(saved: dict[str, Any] | str) -> str:
    """What the pass knew and how much of it was trained on; a sharded checkpoint has it as JSON text."""
    place = json.loads(saved) if isinstance(saved, str) else saved
    generations = place["generations"]
    samples = sum(generation["samples"] for generation in generations)
    if "mix" in place:
        names = ", ".join(f"{one['name']} ({one['samples']:,} samples)" for one in place["mix"]["portions"])
        return (
            f"A mixture of {names}, converted to MDS, snapshot fingerprint `{place['fingerprint']}`. {place['epoch']} "
            f"passes are finished, {place['position']:,} samples of the next one are done; in a pass each sample is "
            "trained on exactly as often as the mixture says."
        )
    return (
        f"[{DATA_SET}](https://huggingface.co/datasets/{DATA_SET}), converted to MDS: {samples:,} samples in "
        f"{len(generations)} generations, snapshot fingerprint `{place['fingerprint']}`. "
        f"{place['epoch']} passes are finished, {place['position']:,} samples of the next one are done; "
        "in a pass each sample is trained on once."
    )


def progress_lines(timestamp: dict[str, Any]) -> str:
    return (
        f"{timestamp['batch']:,} optimizer steps, {timestamp['sample']:,} samples, {timestamp['token']:,} tokens, "
        f"{timestamp['epoch']} epochs."
    )


def shown_config(path: Path) -> str:
    """The hyperparameters of the run as YAML."""
    if not path.is_file():
        return "# config.yaml was not kept\n"
    config = read_run_config(path)
    shown: dict[str, Any] = {}
    for key in HYPERPARAMETERS:
        *sections, name = key.split(".")
        place = shown
        for section in sections:
            place = place.setdefault(section, {})
        place[name] = setting(config, key)
    return yaml.safe_dump(shown, sort_keys=False)


def table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def loss_points(state: dict[str, Any]) -> list[tuple[int, float]]:
    """Batch and loss of the run so far; empty for a run from before the curve was kept."""
    curve = state.get("callbacks", {}).get("LossCurve", {})
    return [(int(batch), float(loss)) for batch, loss in curve.get("points", [])]


def draw_loss(points: list[tuple[int, float]], path: Path) -> None:
    """The loss curve as a picture. Without pyplot, which keeps global state and is not safe beside other threads."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 3.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    batches, losses = zip(*points, strict=True)
    axes.plot(batches, losses, linewidth=1)
    axes.set_xlabel("optimizer step")
    axes.set_ylabel("training loss (nats per answer token)")
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=110)
