"""A run, exported: what is in the folder, and that it answers as the run does."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors import safe_open

from theworld.commands.export import main
from theworld.data.samples.regions import Turn
from theworld.errors import UserError
from theworld.inference.answering import Answerer, Asked
from theworld.inference.load_trained import load_trained

pytestmark = pytest.mark.slow
QUESTION = "Is Region [0] to the left of Region [1]?"

ASK = """
import json, sys
from PIL import Image
from theworld.inference.answering import Answerer, Asked
from theworld.inference.load_trained import load_trained

answerer = Answerer(load_trained(sys.argv[1]), max_new_tokens=12)
(answer,) = answerer.answer([Asked((Image.open(sys.argv[2]),), sys.argv[3])])
heavy = sorted({name.partition(".")[0] for name in sys.modules} & {"composer", "streaming"})
print(json.dumps([answer, heavy]))
"""

STOCK = """
import json, sys
import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

model = AutoModelForImageTextToText.from_pretrained(sys.argv[1], trust_remote_code=False).eval()
processor = AutoProcessor.from_pretrained(sys.argv[1], trust_remote_code=False)
content = [{"type": "image"}, {"type": "text", "text": sys.argv[3]}]
text = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
inputs = processor(text=text, images=Image.open(sys.argv[2]), return_tensors="pt", add_special_tokens=False)
with torch.inference_mode():
    written = model.generate(**inputs, max_new_tokens=12, do_sample=False)
answer = processor.batch_decode(written[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)[0].strip()
print(json.dumps([answer, sorted({name.partition(".")[0] for name in sys.modules} & {"theworld"})]))
"""


@pytest.fixture(scope="module")
def picture(raw_sample: Path) -> Path:
    return sorted((raw_sample / "images").glob("*.jpg"))[0]


def in_fresh_process(code: str, model: Path, picture: Path) -> list[object]:
    done = subprocess.run(
        [sys.executable, "-c", code, str(model), str(picture), QUESTION], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


def answer_of(where: Path, picture: Path) -> str:
    answerer = Answerer(load_trained(str(where)), max_new_tokens=12)
    (answer,) = answerer.answer([Asked((Image.open(picture),), QUESTION)])
    return answer


@pytest.mark.parametrize("merge", [False, True])
def test_a_folder_answers_as_its_run_without_composer_and_streaming(
    merge: bool, world_run: Path, picture: Path, tmp_path: Path
) -> None:
    out = tmp_path / "model"
    assert main([str(world_run), str(out), *(["--merge"] if merge else [])]) == 0
    said = answer_of(world_run, picture)
    assert said
    assert in_fresh_process(ASK, out, picture) == [said, []]
    config = json.loads((out / "config.json").read_text())
    assert config["partial_weights"] is (not merge)


def test_without_a_world_it_is_plain_gemma_for_stock_classes(plain_run: Path, picture: Path, tmp_path: Path) -> None:
    out = tmp_path / "model"
    assert main([str(plain_run), str(out)]) == 0
    assert json.loads((out / "config.json").read_text())["model_type"] == "gemma3"
    said = answer_of(plain_run, picture)
    assert said
    assert in_fresh_process(STOCK, out, picture) == [said, []]
    assert answer_of(out, picture) == said


def test_precision_and_checkpoint(world_run: Path, tmp_path: Path) -> None:
    assert main([str(world_run), str(tmp_path / "half"), "--merge", "--dtype", "bf16"]) == 0
    (file,) = (tmp_path / "half").glob("*.safetensors")
    with safe_open(file, framework="pt") as weights:
        kinds = {weights.get_tensor(name).dtype for name in weights.keys()}  # noqa: SIM118 - no mapping
        assert kinds == {torch.bfloat16}
        assert not any("optim" in name for name in weights.keys())  # noqa: SIM118
    assert load_trained(str(tmp_path / "half")).model.dtype == torch.float32
    for arguments, message in (
        ([str(world_run), str(tmp_path / "half")], "is there already"),
        ([str(world_run), str(tmp_path / "new"), "--checkpoint", "ep9-ba9-rank0.pt"], "no checkpoint ep9-ba9-rank0.pt"),
        ([str(tmp_path / "none"), str(tmp_path / "new")], "no such folder"),
        ([str(tmp_path), str(tmp_path / "new")], "no whole checkpoint"),
    ):
        with pytest.raises(UserError, match=message):
            main(arguments)
        assert not (tmp_path / "new").exists()


def test_a_run_is_not_its_base(world_run: Path, picture: Path) -> None:
    """Trained weights are those that answer: the tiny base says something else."""
    run, base = load_trained(str(world_run)), load_trained("builtin:tiny")
    assert run.identity != base.identity
    asked = [Asked((Image.open(picture),), QUESTION), Asked((Image.open(picture),), "How wide is Region [0]?")]
    assert Answerer(run, 12).answer(asked) != Answerer(base, 12).answer(asked)


def test_a_turn_behind_others_is_asked_as_in_training(world_run: Path, picture: Path) -> None:
    answerer = Answerer(load_trained(str(world_run)))
    turns = [Turn("How tall is Region [0]?", "It is 2 feet."), Turn(QUESTION, "Yes.")]
    ids, labels, kept = answerer.encoder.encode_turns(turns)
    assert kept == 2
    asked = Asked((Image.open(picture),), QUESTION, before=(turns[0],))
    prompt = answerer.prompt_ids(asked)
    assert ids[: len(prompt)] == prompt
    assert labels[len(prompt)] == ids[len(prompt)]
