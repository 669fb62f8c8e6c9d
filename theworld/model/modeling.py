"""TheWorld: Gemma 3 whose sequence begins with tokens of the world.

World tokens are placeholders in ``input_ids`` that are replaced by features (masked scatter), as Gemma 3 does with
image tokens. Attention masks, labels, caches and batches of mixed lengths therefore need nothing special.
World tokens attend causally; image tokens see each other in both directions, as in Gemma 3.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, distributed, nn
from transformers import Gemma3ForConditionalGeneration, Gemma3Model
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.models.gemma3.modeling_gemma3 import Gemma3CausalLMOutputWithPast

from theworld.compat import IMAGES_OF_OUTPUT, cache_as_named, image_features, is_first_step
from theworld.errors import UserError
from theworld.model.adapters import is_adapter_half
from theworld.model.configuration import TheWorldConfig
from theworld.model.loss import CHUNK_TOKENS, answer_loss
from theworld.model.on_bases import load_on_bases
from theworld.model.pixels import normalize
from theworld.model.projector import WorldProjector
from theworld.model.require import require
from theworld.model.world_encoder import WorldEncoder


@dataclass
class TheWorldOutput(Gemma3CausalLMOutputWithPast):
    """Gemma 3's output; with labels also how many answer tokens carried loss, and how many were predicted right.

    With labels, ``logits`` is None: they are never computed for the whole sequence. With the model's ``loss_by_sample``
    there are also each sample's summed loss and its answer tokens, both (B,).
    """

    num_loss_tokens: Tensor | None = None
    num_correct: Tensor | None = None
    sample_losses: Tensor | None = None
    sample_tokens: Tensor | None = None


class _WorldInitialisation(nn.Module):
    """Lets transformers initialise the world projector like any other module."""

    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)  # type: ignore[misc]
        if isinstance(module, WorldProjector):
            text = self.config.get_text_config()  # type: ignore[attr-defined]
            module.reset_parameters(rms=text.initializer_range * math.sqrt(text.hidden_size))


class TheWorldModel(_WorldInitialisation, Gemma3Model):
    """Gemma 3's body with ``world_projector`` and ``world_encoder`` (either is None where the model has none)."""

    config: TheWorldConfig
    config_class = TheWorldConfig

    def __init__(self, config: TheWorldConfig) -> None:
        super().__init__(config)
        self.world_projector: WorldProjector | None = None
        self.world_encoder: WorldEncoder | None = None
        if config.enable_world:
            self.world_projector = WorldProjector(
                mode=config.projector_mode,
                architecture=config.projector_architecture,
                patch=config.projector_patch,
                queries=config.projector_queries,
                channels=config.latent_channels,
                side=config.latent_side,
                hidden_size=config.text_config.hidden_size,
            )
            if config.with_world_encoder:
                self.world_encoder = WorldEncoder(config.vae)
        self.post_init()

    def get_image_features(self, pixel_values: Tensor, **kwargs: Any) -> Any:  # type: ignore[override]
        """Gemma 3's; ``pixel_values`` (B, 3, H, W) may also be bytes (uint8), which are normalised here."""
        if pixel_values.dtype == torch.uint8:
            config = self.config
            pixel_values = normalize(pixel_values, config.image_mean, config.image_std, config.image_rescale_factor)
        return super().get_image_features(pixel_values, **kwargs)  # type: ignore[arg-type]

    def get_world_latents(self, world_pixel_values: Tensor) -> Tensor:
        """Pixels (B, 3, S, S), uint8 or floats in [-1, 1], to normalised latents (B, 16, S/8, S/8)."""
        if self.world_encoder is None:
            raise ValueError("this model has no world encoder; pass world_latents, or build it with its VAE")
        return self.world_encoder(world_pixel_values)

    def get_world_features(self, world_pixel_values: Tensor | None, world_latents: Tensor | None) -> Tensor:
        """Features (B, N + 2, hidden) of start, world tokens and end; latents win over pixels."""
        if self.world_projector is None:
            raise ValueError("world inputs were given, but the model's enable_world is false")
        if world_latents is None:
            assert world_pixel_values is not None
            world_latents = self.get_world_latents(world_pixel_values)
        return self.world_projector(world_latents)

    def world_mask(self, input_ids: Tensor) -> Tensor:
        """Where ``input_ids`` (B, L) hold start, soft token or end of a world."""
        start, end, soft = self.config.world_token_ids
        return (input_ids == soft) | (input_ids == start) | (input_ids == end)

    def scatter_world(self, input_ids: Tensor, inputs_embeds: Tensor, features: Tensor) -> Tensor:
        """``inputs_embeds`` (B, L, hidden) with the world's placeholders replaced, in order, by ``features``.

        Raises:
            ValueError: the number of placeholders is not the number of features.
        """
        mask = self.world_mask(input_ids)
        given = features.shape[0] * features.shape[1]
        require(mask.sum() == given, f"world tokens and features do not match: there are {given} features")
        return inputs_embeds.masked_scatter(mask.unsqueeze(-1), features.to(inputs_embeds.dtype))

    def forward(  # type: ignore[override]
        self,
        input_ids: Tensor | None = None,
        pixel_values: Tensor | None = None,
        attention_mask: Any = None,
        position_ids: Tensor | None = None,
        past_key_values: Any = None,
        cache: Any = None,
        token_type_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        world_pixel_values: Tensor | None = None,
        world_latents: Tensor | None = None,
        **kwargs: Any,
    ) -> Any:
        """Gemma 3's forward; without world inputs nothing but Gemma 3's forward.

        Args:
            pixel_values: Gemma 3's floats, or the same pictures as bytes (uint8).
            world_pixel_values: (W, 3, S, S), floats in [-1, 1] or uint8, one per world sequence in ``input_ids``.
            world_latents: (W, 16, S/8, S/8), normalised; instead of the pixels.
            past_key_values, cache: Gemma 3's, under either of its names.
            kwargs: the others are Gemma 3's.
        """
        past = past_key_values if cache is None else cache
        has_world = world_pixel_values is not None or world_latents is not None
        if not has_world:
            self._refuse_empty_world(input_ids, past)
        images = None
        # A loss is computed on all ranks at once, a step of generation is not.
        together = kwargs.get("use_cache") is False and rank_count() > 1
        if has_world or self._must_run(not has_world, pixel_values is None, together):
            if input_ids is None:
                raise ValueError("world tokens are found by their ids: pass input_ids, not inputs_embeds")
            world = self._world_features_or_idle(world_pixel_values, world_latents, together)
            inputs_embeds, images = self._embed(input_ids, inputs_embeds, pixel_values, world, has_world, together)
            input_ids, pixel_values = None, None
        outputs = super().forward(
            input_ids=input_ids,  # type: ignore[arg-type]
            pixel_values=pixel_values,  # type: ignore[arg-type]
            attention_mask=attention_mask,
            position_ids=position_ids,  # type: ignore[arg-type]
            token_type_ids=token_type_ids,  # type: ignore[arg-type]
            inputs_embeds=inputs_embeds,  # type: ignore[arg-type]
            **cache_as_named(past),
            **kwargs,
        )
        if images is not None and not isinstance(outputs, tuple):
            setattr(outputs, IMAGES_OF_OUTPUT, images)
        return outputs

    def _refuse_empty_world(self, input_ids: Tensor | None, past: Any) -> None:
        """World tokens without world inputs would be read as untrained words: say so, at the start of a sequence."""
        starts = past is None or past.get_seq_length() == 0
        if self.world_projector is not None and input_ids is not None and starts and self.world_mask(input_ids).any():
            raise ValueError("input_ids hold world tokens, but neither world_pixel_values nor world_latents were given")

    def _embed(
        self,
        input_ids: Tensor,
        inputs_embeds: Tensor | None,
        pixel_values: Tensor | None,
        world: Tensor | None,
        has_world: bool,
        together: bool,
    ) -> tuple[Tensor, Any]:
        """Words, world and image as one sequence (B, L, hidden), and what ``get_image_features`` gave, or None."""
        embeds = self.get_input_embeddings()(input_ids) if inputs_embeds is None else inputs_embeds
        if world is not None:
            embeds = self.scatter_world(input_ids, embeds, world) if has_world else embeds + nothing_of(world, embeds)
        if pixel_values is None:
            if self._must_run(False, True, together):
                blank = self._blank_picture(self.config.vision_config.image_size)
                embeds = embeds + nothing_of(image_features(self.get_image_features(blank)), embeds)
            return embeds, None
        found = self.get_image_features(pixel_values)
        images = image_features(found).to(embeds.dtype)
        mask: Any = self.get_placeholder_mask(
            input_ids,  # type: ignore[arg-type]
            inputs_embeds=embeds,  # type: ignore[arg-type]
            image_features=images,
        )
        return embeds.masked_scatter(mask, images), found

    def _must_run(self, lacks_world: bool, lacks_images: bool, together: bool) -> bool:
        """Whether a part must run although the batch has nothing for it (``lacks_...``).

        A rank whose batch has no picture must still have (zero) gradients for all trainable parameters, and must run
        the same modules as the other ranks, in the same order: DDP and FSDP wait for them otherwise. In evaluation
        (``together``: all ranks compute a loss) FSDP does too.
        """
        trains = self.training and torch.is_grad_enabled()
        if not trains and not together:
            return False
        if lacks_world and self.world_projector is not None:
            return True
        seeing = (self.vision_tower, self.multi_modal_projector)
        alone = trains and any(p.requires_grad for part in seeing for p in part.parameters())
        return lacks_images and (rank_count() > 1 or alone)

    def _world_features_or_idle(self, pixels: Tensor | None, latents: Tensor | None, together: bool) -> Tensor | None:
        """Features of the world inputs; of a blank picture if there are none but the projector must run."""
        if pixels is None and latents is None:
            if not self._must_run(True, False, together):
                return None
            if self.world_encoder is not None:
                pixels = self._blank_picture(self.config.world_image_size)
            else:
                shape = (1, self.config.latent_channels, self.config.latent_side, self.config.latent_side)
                latents = torch.zeros(shape, device=self.get_input_embeddings().weight.device)
        return self.get_world_features(pixels, latents)

    def _blank_picture(self, side: int) -> Tensor:
        """Grey pixels (1, 3, side, side) of the vision tower's dtype."""
        parameter = next(self.vision_tower.parameters())
        return torch.zeros(1, 3, side, side, device=parameter.device, dtype=parameter.dtype)


def hub_settings(settings: dict[str, Any]) -> dict[str, Any]:
    """Those settings of a call that say where on the Hub to look."""
    names = ("revision", "token", "cache_dir", "local_files_only", "force_download", "subfolder")
    return {name: settings[name] for name in names if name in settings}


def rank_count() -> int:
    """Ranks that run side by side; 1 without a process group."""
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1


def nothing_of(features: Tensor, like: Tensor) -> Tensor:
    """A zero that depends on ``features``. Unlike 0 * sum it is no NaN where a feature has overflowed."""
    return features.flatten()[:0].sum().to(like.dtype)


class TheWorldForConditionalGeneration(_WorldInitialisation, Gemma3ForConditionalGeneration):
    """Gemma 3 with world tokens and a loss on the answers only.

    ``from_pretrained`` refuses a file with missing or unexpected weights. Parts without a trainable parameter stay in
    eval mode, also after ``train()``.
    """

    config: TheWorldConfig
    config_class = TheWorldConfig
    loss_chunk_tokens: int = CHUNK_TOKENS
    loss_by_sample: bool = False

    def __init__(self, config: TheWorldConfig) -> None:
        # Past Gemma3ForConditionalGeneration.__init__, which would build a body without a world first.
        super(Gemma3ForConditionalGeneration, self).__init__(config)
        self.model = TheWorldModel(config)
        self.lm_head = nn.Linear(config.text_config.hidden_size, config.text_config.vocab_size, bias=False)
        self.post_init()
        if config.enable_world and self.generation_config is not None:
            self.suppress_world_tokens()

    def suppress_world_tokens(self) -> None:
        """Keep ``generate`` from writing placeholders, which have no meaning as words."""
        assert self.generation_config is not None
        others = set(self.generation_config.suppress_tokens or ())
        self.generation_config.suppress_tokens = sorted(others | set(self.config.world_token_ids))

    @classmethod
    def from_pretrained(  # type: ignore[override]
        cls, folder: Any, *args: Any, may_miss: str | None = None, output_loading_info: bool = False, **kwargs: Any
    ) -> Any:
        """transformers' ``from_pretrained``, except that every weight must be there and be wanted.

        A folder or repo that holds only what was trained is put on its base models, which are fetched as needed.

        Args:
            may_miss: prefix of weights that need not be in the file, because the caller fills them in.

        Raises:
            UserError: a weight is missing, unexpected or of another shape.
        """
        if may_miss is None:
            config = kwargs.pop("config", None) or cls.config_class.from_pretrained(folder, **hub_settings(kwargs))
            if getattr(config, "partial_weights", False):
                model = load_on_bases(cls, str(folder), config, kwargs.pop("revision", None), **kwargs)
                return (model, {}) if output_loading_info else model
            kwargs["config"] = config
        loaded: Any = super().from_pretrained(folder, *args, output_loading_info=True, **kwargs)
        model, info = loaded
        missing = [name for name in info["missing_keys"] if may_miss is None or not name.startswith(may_miss)]
        wrong = {"missing": missing, "unexpected": info["unexpected_keys"], "of another shape": info["mismatched_keys"]}
        for what, names in wrong.items():
            if names:
                some = ", ".join(str(name) for name in sorted(names)[:3])
                raise UserError(f"{folder}: {len(names)} weights {what} for {cls.__name__}, for example {some}")
        if model.config.enable_world:
            model.suppress_world_tokens()
        return (model, info) if output_loading_info else model

    def train(self, mode: bool = True) -> Any:
        """Training mode for the parts that train; frozen parts stay in eval mode."""
        super().train(mode)
        if not mode:
            return self
        for part in self.freezable_parts().values():
            if not any(parameter.requires_grad for parameter in part.parameters()):
                part.eval()
        for layer in self.modules():
            # A layer's own flag steers nothing but recomputation, which a frozen language model needs as well,
            # because gradients pass through it to the projector. Its dropout sits in children, which stay in eval.
            if isinstance(layer, GradientCheckpointingLayer) and layer.gradient_checkpointing:
                layer.training = True
        return self

    def freezable_parts(self) -> dict[str, nn.Module]:
        """The parts that can be frozen, by name."""
        body = self.model
        parts = {
            "vision_tower": body.vision_tower,
            "multi_modal_projector": body.multi_modal_projector,
            "language_model": body.language_model,
            "lm_head": self.lm_head,
            "world_encoder": body.world_encoder,
        }
        return {name: part for name, part in parts.items() if part is not None}

    def fsdp_wrap_fn(self, module: nn.Module) -> bool:
        """Composer's question which modules FSDP shards by themselves.

        Each layer, each half of an adapter, and each part that can be frozen or trained apart from the others: within
        one unit everything must be of one precision. Embedding and head are tied and stay with the whole model.
        """
        body = self.model
        parts = (body.vision_tower, body.multi_modal_projector, body.world_projector, body.world_encoder)
        is_part = any(module is part for part in parts)
        return is_part or isinstance(module, GradientCheckpointingLayer) or is_adapter_half(module)

    def activation_checkpointing_fn(self, module: nn.Module) -> bool:
        """Composer's question which modules to compute again in the backward pass."""
        return isinstance(module, GradientCheckpointingLayer)

    def forward(  # type: ignore[override]
        self,
        input_ids: Tensor | None = None,
        pixel_values: Tensor | None = None,
        attention_mask: Any = None,
        position_ids: Tensor | None = None,
        past_key_values: Any = None,
        cache: Any = None,
        token_type_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | Tensor = 0,
        world_pixel_values: Tensor | None = None,
        world_latents: Tensor | None = None,
        **kwargs: Any,
    ) -> Any:
        """Gemma 3's forward with world inputs (:meth:`TheWorldModel.forward`).

        Without ``labels`` it returns logits as Gemma 3 does. With ``labels`` (B, L; -100: no loss) it returns a
        :class:`TheWorldOutput` whose ``loss`` is the mean over the batch's answer tokens.
        """
        inputs: dict[str, Any] = {
            "input_ids": input_ids,
            "pixel_values": pixel_values,
            "attention_mask": attention_mask,
            "position_ids": position_ids,
            "token_type_ids": token_type_ids,
            "inputs_embeds": inputs_embeds,
            "world_pixel_values": world_pixel_values,
            "world_latents": world_latents,
        }
        if labels is None:
            return super().forward(
                **inputs,
                **cache_as_named(past_key_values if cache is None else cache),
                use_cache=use_cache,
                logits_to_keep=logits_to_keep,
                **kwargs,
            )
        # A cache is of no use to a loss, and would cost the memory of all keys and values.
        outputs = self.model(**inputs, use_cache=False, **kwargs)
        result = answer_loss(
            outputs[0], labels, attention_mask, self.lm_head, self.loss_chunk_tokens, self.loss_by_sample
        )
        return TheWorldOutput(
            loss=result.loss,  # type: ignore[arg-type]
            num_loss_tokens=result.tokens,
            num_correct=result.correct,
            sample_losses=result.of_samples,
            sample_tokens=result.tokens_of_samples,
            hidden_states=getattr(outputs, "hidden_states", None),
            attentions=getattr(outputs, "attentions", None),
            **{IMAGES_OF_OUTPUT: getattr(outputs, IMAGES_OF_OUTPUT, None)},
        )

    def generate(self, *args: Any, **kwargs: Any) -> Any:
        """transformers' ``generate``; a picture is encoded once, whatever the number of tokens, beams or samples."""
        pixels = kwargs.get("world_pixel_values")
        if pixels is not None and kwargs.get("world_latents") is None:
            with torch.no_grad():
                kwargs["world_latents"] = self.model.get_world_latents(pixels)
        kwargs.pop("world_pixel_values", None)
        return super().generate(*args, **kwargs)

    def prepare_inputs_for_generation(  # type: ignore[override]
        self, input_ids: Tensor, world_latents: Tensor | None = None, **kwargs: Any
    ) -> dict[str, Any]:
        """Gemma 3's; the world goes in with the prompt and is in the cache afterwards."""
        inputs = super().prepare_inputs_for_generation(input_ids, **kwargs)
        if is_first_step(kwargs):
            inputs["world_latents"] = world_latents
        return inputs
