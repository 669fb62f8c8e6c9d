"""Composer's profiler from the YAML: what the operators of some batches cost, as a trace and as a table in the log."""

from __future__ import annotations

import logging
from pathlib import Path

from composer.profiler import Profiler, TraceHandler, cyclic_schedule
from composer.profiler.torch_profiler import TorchProfiler
from composer.utils import dist

from theworld.config.schema import ProfilerConfig

log = logging.getLogger(__name__)

FOLDER = "traces"
ROWS = 10


class CostliestOperators(TraceHandler):
    """Logs the operators of rank 0 that have taken the most time, without those that they call, after each trace."""

    def __init__(self) -> None:
        self.operators: TorchProfiler | None = None

    def process_chrome_json_trace_file(self, filepath: Path | str) -> None:
        if dist.get_global_rank() != 0 or self.operators is None or self.operators.profiler is None:
            return
        costs = self.operators.profiler.key_averages()
        on_gpu = any(cost.self_device_time_total for cost in costs)
        table = costs.table(sort_by=f"self_{'cuda' if on_gpu else 'cpu'}_time_total", row_limit=ROWS)
        log.info("the %d costliest operators; the trace for https://ui.perfetto.dev is %s\n%s", ROWS, filepath, table)


def build_profiler(config: ProfilerConfig | None, save_folder: Path, attempt: int) -> Profiler | None:
    """The profiler, whose traces go to ``traces/`` in the save folder, one for each rank and time.

    Args:
        config: the section; None: there is no profiler.
        save_folder: of the run.
        attempt: number of this start, in the files' names.
    """
    if config is None:
        return None
    # At the end Composer logs tables of its own, of twice as many rows.
    logging.getLogger("composer.profiler.torch_profiler").setLevel(logging.WARNING)
    table = CostliestOperators()
    folder = str(save_folder.absolute() / FOLDER).replace("{", "{{").replace("}", "}}")
    profiler = Profiler(
        schedule=cyclic_schedule(config.skip_first, config.wait, config.warmup, config.active, config.repeat),
        trace_handlers=[table],
        sys_prof_cpu=False,
        torch_prof_folder=folder,
        torch_prof_filename=f"start{attempt}-rank{{rank}}-ba{{batch}}.pt.trace.json",
        torch_prof_remote_file_name=None,
        torch_prof_memory_remote_file_name=None,
        torch_prof_overwrite=True,  # else the folder would have to be empty; no two files have one name
        torch_prof_record_shapes=config.shapes,
        torch_prof_profile_memory=config.memory,
        torch_prof_with_stack=config.stack,
    )
    table.operators = next(one for one in profiler._callbacks if isinstance(one, TorchProfiler))
    return profiler
