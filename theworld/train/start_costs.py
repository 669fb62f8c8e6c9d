"""What Composer looks up at each start, in each rank, for seconds of CPU time, and which this recipe knows."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from composer.models import huggingface
from composer.utils import collect_env

CPU_FACTS = Path("/proc/cpuinfo")


@cache
def cpu_name() -> str:
    """The processor's name, as Composer writes it into checkpoints: py-cpuinfo, which Composer asks, starts a Python of
    its own to measure the processor's speed, and finds the name where it is found here."""
    lines = CPU_FACTS.read_text(errors="replace").splitlines() if CPU_FACTS.exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "CPU")


def spare_lookups() -> None:
    """Let Composer not look them up, from here on."""
    # It finds out whether a model is a causal language model by importing every one that transformers has: 400 modules
    # and torch's compiler. Gemma 3 is one.
    huggingface._is_registered_causal_lm = lambda model: True
    collect_env.get_cpu_model = cpu_name
