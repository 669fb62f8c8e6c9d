"""Two copies of a sample in one batch, neither of which can be trained on: both are in the ledger and in the proof."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from theworld.audit.claim import PassClaim, Span
from theworld.audit.count import Claim, count_ledger, hash_id, names_of
from theworld.audit.count import key_of as key
from theworld.data.batches.collate import PADDING_SAMPLE
from theworld.train.callbacks.ledger import Ledger


def test_each_copy_is_counted(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path, 1, cast(Any, None))
    now = SimpleNamespace(batch=0, epoch=0, sample_in_epoch=0)
    state: Any = SimpleNamespace(timestamp=now, batch={})
    ledger.fit_start(state, cast(Any, None))
    now.batch = 1
    names = ["a/1", "a/2", "a/1", "a/1", "a/3", "a/1"]
    reasons = ["grey", "", "grey", "grey", "cut", PADDING_SAMPLE]
    state.batch = {"sample_ids": names, "skipped": reasons}
    ledger.batch_end(state, cast(Any, None))
    ledger.close(state, cast(Any, None))
    line = json.loads((tmp_path / "ledger" / "rank0.jsonl").read_text())
    assert line["ids"] == ["a/2"]
    assert line["skipped"] == {"a/1": "grey", "a/3": "cut"}
    assert line["skipped_copies"] == {"a/1": 3}
    claim = Claim(None, [PassClaim(0, False, [Span(1, 0, 1, 1)], None, {})])
    counted = count_ledger(tmp_path / "ledger", claim)
    assert counted.damaged == []
    tally = counted.passes[0].ids["skipped"]
    assert tally.sum.count == ledger.unproven["skipped"].count == 4
    assert tally.sum.digest == ledger.unproven["skipped"].total, "what the proof has"
    assert names_of(tmp_path / "ledger", claim, [{key(hash_id("a/1"))}])[0] == {"a/1": 3}
