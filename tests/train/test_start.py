"""What a start imports: each module costs time at every start and after every preemption."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from tests.helpers.launcher import run

SCRIPT = """
import json
import sys

from theworld.commands.train import main

code = main(json.loads(sys.argv[1]))
print("imported:", json.dumps(sorted(sys.modules)))
sys.exit(code)
"""


def test_neither_other_models_nor_the_compiler_are_imported(mds_sample: Path, tmp_path: Path) -> None:
    script, log = tmp_path / "script.py", tmp_path / "log"
    script.write_text(SCRIPT)
    settings = ["yamls/smoke.yaml", f"train_loader.dataset.remote={mds_sample}", f"save_folder={tmp_path / 'run'}"]
    settings += [f"train_loader.dataset.local={tmp_path / 'cache'}", "train_loader.num_workers=0", "max_duration=1ba"]
    assert run([sys.executable, str(script), json.dumps(settings)], log) == 0, log.read_text()
    line = next(line for line in log.read_text().splitlines() if line.startswith("imported: "))
    imported = json.loads(line.removeprefix("imported: "))
    assert "transformers.models.gemma3.modeling_gemma3" in imported
    others = {
        name.split(".")[2] for name in imported if name.startswith("transformers.models.") and "modeling_" in name
    }
    assert len(others) < 10, others
    # peft imports bitsandbytes where it is installed, and that the compiler; fast tests run without it.
    assert "torch._inductor.lowering" not in imported or "bitsandbytes" in imported
