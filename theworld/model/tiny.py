"""``builtin:tiny``: a random Gemma 3 and a random Cosmos VAE, made by code, of the real classes.

They are written as ordinary folders (``gemma/``, ``cosmos/vae/``), so that what loads them is what loads the real
models. Nothing is downloaded. The same code gives the same weights.
"""

from __future__ import annotations

import errno
import hashlib
import shutil
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from theworld.compat import IMAGE_PROCESSOR_FILES
from theworld.files import check_private, own_temporary
from theworld.model import tiny_tokenizer
from theworld.model.vae_class import vae_class

SEED = 20
TEXT_VOCABULARY = 1024
"""Rows of the embedding: more than the tokenizer has, as with the real Gemma 3."""
IMAGE_SIZE = 112
IMAGE_TOKENS = 16

CHAT_TEMPLATE = """\
{{- bos_token -}}
{%- macro content_of(message) -%}
  {%- if message['content'] is string -%}
    {{- message['content'] | trim -}}
  {%- else -%}
    {%- for part in message['content'] -%}
      {%- if part['type'] == 'image' -%}<start_of_image>{%- else -%}{{- part['text'] | trim -}}{%- endif -%}
    {%- endfor -%}
  {%- endif -%}
{%- endmacro -%}
{%- set state = namespace(system='', expected='user') -%}
{%- for message in messages -%}
  {%- if message['role'] == 'system' -%}
    {%- set state.system = content_of(message) + '\n\n' -%}
  {%- else -%}
    {%- if message['role'] != state.expected -%}
      {{- raise_exception('expected a message of role ' + state.expected) -}}
    {%- endif -%}
    {{- '<start_of_turn>' + ('model' if message['role'] == 'assistant' else 'user') + '\n' -}}
    {{- state.system + content_of(message) + '<end_of_turn>\n' -}}
    {%- set state.system = '' -%}
    {%- set state.expected = 'assistant' if state.expected == 'user' else 'user' -%}
  {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<start_of_turn>model\n' -}}{%- endif -%}
"""

EXPECTED_FILES = (
    "gemma/config.json",
    "gemma/generation_config.json",
    "gemma/model.safetensors",
    *(f"gemma/{name}" for name in IMAGE_PROCESSOR_FILES),
    "gemma/processor_config.json",
    "gemma/tokenizer.json",
    "gemma/tokenizer_config.json",
    "cosmos/vae/config.json",
    "cosmos/vae/diffusion_pytorch_model.safetensors",
)


def tiny_folder() -> Path:
    """The folder with the tiny models, built if it is not there yet.

    It lies in the temporary folder under a name that follows from this code, the libraries and the user. Several
    processes may call this at once: each builds aside, and the first to rename wins.

    Raises:
        UserError: somebody else has put something there.
    """
    folder = own_temporary(f"theworld-tiny-{_fingerprint()}")
    check_private(folder)
    if _is_whole(folder):
        return folder
    aside = Path(tempfile.mkdtemp(prefix=f"{folder.name}-building-", dir=folder.parent))
    try:
        build_gemma(aside / "gemma")
        build_vae(aside / "cosmos" / "vae")
        _put_in_place(aside, folder)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return folder


def _fingerprint() -> str:
    """Changes with the code and the libraries that make the tiny models."""
    digest = hashlib.sha256()
    for file in (__file__, tiny_tokenizer.__file__):
        digest.update(Path(file).read_bytes())
    digest.update("".join(version(name) for name in ("torch", "transformers", "tokenizers", "diffusers")).encode())
    return digest.hexdigest()[:12]


def _is_whole(folder: Path) -> bool:
    """Whether all files are there: cleaners of temporary folders delete single old files."""
    return all((folder / name).is_file() for name in EXPECTED_FILES)


def _put_in_place(aside: Path, folder: Path) -> None:
    """Rename ``aside`` to ``folder``, unless another process has put a whole one there meanwhile."""
    try:
        aside.rename(folder)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        if _is_whole(folder):
            return
        # A folder that a cleaner has half emptied: what is missing is copied in, each file in one step.
        for name in EXPECTED_FILES:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (aside / name).replace(folder / name)


def build_gemma(folder: Path) -> None:
    """Write a random Gemma 3 with its processor: two text layers (one with a sliding window), two vision layers."""
    from transformers import Gemma3ForConditionalGeneration, Gemma3ImageProcessor, Gemma3Processor

    tokenizer = tiny_tokenizer.build_tokenizer()
    processor = Gemma3Processor(
        image_processor=Gemma3ImageProcessor(size={"height": IMAGE_SIZE, "width": IMAGE_SIZE}),
        tokenizer=tokenizer,
        chat_template=CHAT_TEMPLATE,
        image_seq_length=IMAGE_TOKENS,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        model = Gemma3ForConditionalGeneration(_gemma_config(tokenizer))
        # It is zero in a new Gemma 3, and images would have no effect.
        projection = model.model.multi_modal_projector.mm_input_projection_weight
        torch.nn.init.normal_(projection.data, std=projection.shape[0] ** -0.5)
    assert model.generation_config is not None
    end_of_turn = tokenizer.convert_tokens_to_ids("<end_of_turn>")
    model.generation_config.eos_token_id = [tokenizer.eos_token_id, end_of_turn]
    image_words = ["<image_soft_token>", "<start_of_image>", "<end_of_image>"]
    # A trained model does not write image placeholders; a random one would.
    model.generation_config.suppress_tokens = tokenizer.convert_tokens_to_ids(image_words)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)


def _gemma_config(tokenizer: Any) -> Any:
    from transformers import Gemma3Config

    return Gemma3Config(
        text_config={
            "vocab_size": TEXT_VOCABULARY,
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 16,
            "query_pre_attn_scalar": 16,
            "layer_types": ["sliding_attention", "full_attention"],
            "sliding_window": 64,
            "max_position_embeddings": 8192,
            # Large enough that logits differ and gradients are seen in a model of this width.
            "initializer_range": 0.1,
        },
        vision_config={
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "image_size": IMAGE_SIZE,
            "patch_size": 14,
            "vision_use_head": False,
        },
        mm_tokens_per_image=IMAGE_TOKENS,
        boi_token_index=tokenizer.convert_tokens_to_ids("<start_of_image>"),
        eoi_token_index=tokenizer.convert_tokens_to_ids("<end_of_image>"),
        image_token_index=tokenizer.convert_tokens_to_ids("<image_soft_token>"),
        initializer_range=0.1,
    )


def build_vae(folder: Path) -> None:
    """Write a random ``AutoencoderKLWan`` of Cosmos' shape (16 channels, 8x smaller) with few features.

    Its ``latents_mean`` and ``latents_std`` are measured on noise pictures, as those of a trained VAE are on data, so
    that normalised latents have about unit variance.
    """
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(SEED)
        vae = vae_class()(base_dim=4, z_dim=16, dim_mult=[1, 2, 4, 4], num_res_blocks=1)
        encoded: Any = vae.encode(_noise_pictures(16, 64))
        latents = encoded.latent_dist.mode()
    mean, std = latents.mean(dim=(0, 2, 3, 4)), latents.std(dim=(0, 2, 3, 4))
    # Rounded, so that the last bits of a machine's arithmetic do not show in the file.
    vae.register_to_config(
        latents_mean=[round(value, 5) for value in mean.tolist()],
        latents_std=[round(value, 5) for value in std.tolist()],
    )
    vae.save_pretrained(folder)


def _noise_pictures(count: int, side: int) -> Tensor:
    """Random pictures (count, 3, 1, side, side) in [-1, 1], with structure at several scales."""
    picture = torch.zeros(count, 3, side, side)
    for cells in (1, 2, 4, 8, 16):
        coarse = torch.rand(count, 3, cells, cells) * 2 - 1
        picture += torch.nn.functional.interpolate(coarse, size=(side, side), mode="nearest")
    return (picture / 2).clamp(-1, 1).unsqueeze(2)
