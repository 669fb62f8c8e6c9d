"""TheWorld as a Composer model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from composer.models import HuggingFaceModel

from theworld.model.flops import Flops, Work, count_flops, trained_parts
from theworld.train.metrics import AnswerAccuracy, AnswerLoss
from theworld.train.start_costs import spare_lookups

if TYPE_CHECKING:
    from torchmetrics import Metric

    from theworld.model.modeling import TheWorldForConditionalGeneration
    from theworld.model.processing import TheWorldProcessor

spare_lookups()


class ComposerTheWorld(HuggingFaceModel):
    """Composer's :class:`HuggingFaceModel` around TheWorld.

    Loss and token counts come from the model's own output, so that logits exist for answer positions only; the
    metrics of evaluation are made from the same counts.
    """

    def __init__(self, model: TheWorldForConditionalGeneration, processor: TheWorldProcessor) -> None:
        super().__init__(
            model,
            tokenizer=processor.tokenizer,  # pyright: ignore[reportAttributeAccessIssue]
            metrics=[],
            eval_metrics=[AnswerLoss(), AnswerAccuracy()],
        )
        self.processor = processor

    def _check_tokenizer_and_maybe_resize_embeddings(self, allow_embedding_resizing: bool) -> None:
        """Composer looks for ``config.vocab_size``, which a Gemma 3 configuration keeps in its ``text_config``
        (AttributeError in 0.32). That the tokenizer fits the embedding is checked where the model is built."""

    def eval_forward(self, batch: Any, outputs: Any | None = None) -> Any:
        """The model's output with loss, answer tokens and how many of them were predicted correctly."""
        return outputs if outputs is not None else self.forward(batch)

    def update_metric(self, batch: Any, outputs: Any, metric: Metric) -> dict[str, Any]:
        """Count one batch of evaluation."""
        metric.update(outputs)
        return {}

    def flops_per_batch(self, batch: Any) -> float:
        """Model FLOPs of this rank's batch, of which SpeedMonitor makes ``throughput/device/mfu``."""
        return self.count_flops(batch).total

    def count_flops(self, batch: Any) -> Flops:
        """The operations of a batch by part, and those of recomputation apart (:mod:`theworld.model.flops`)."""
        config: Any = self.model.config
        again = bool(self.model.is_gradient_checkpointing)
        return count_flops(config, trained_parts(self.model), Work.of(batch), again)

    def get_metadata(self) -> dict[str, Any]:
        """Nothing. Composer would write configuration and tokenizer into every checkpoint: 25 MB and seconds of CPU a
        save with Gemma's vocabulary, and under FSDP an entry for each of its words. ``pretrained/`` in the save folder
        has both."""
        return {}
