"""What a text of a conversation may be: whatever a tokenizer and a file can take."""

from __future__ import annotations


def text_fault(text: str) -> str | None:
    """Why the text can be neither tokenized nor written down; None if it can.

    A lone surrogate is half a character: JSON can spell one (``\\ud83d``), UTF-8 cannot. Bytes that were no UTF-8 come
    as lone surrogates too (:mod:`theworld.data.entries.stream`).
    """
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        return f"half a character (lone surrogate) at place {error.start}"
    return None
