"""Labels of tokens, as the batches hold them and the loss reads them."""

from __future__ import annotations

IGNORE = -100
"""The label of a token that carries no loss: torch's ``ignore_index``, and transformers' convention."""
