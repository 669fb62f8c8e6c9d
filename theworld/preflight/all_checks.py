"""All checks of a run that one process can do, in the order of the table."""

from __future__ import annotations

from collections.abc import Sequence

from theworld.config.schema import Config
from theworld.data.batches.sample_encoder import SampleEncoder
from theworld.errors import UserError
from theworld.model.build import load_processor
from theworld.model.check_model import check_model_config
from theworld.preflight.data_checks import check_data_set, check_samples, check_steps, several_pictures
from theworld.preflight.machine_checks import (
    check_cache,
    check_checkpoints,
    check_hub_rights,
    check_memory,
    check_shared_memory,
    check_versions,
)
from theworld.preflight.verdicts import FAIL, OK, Verdict, check
from theworld.train.check_succession import check_succession
from theworld.train.check_training import check_training
from theworld.train.memory import MemoryOfRun


def check_run(
    config: Config,
    ranks: int,
    ranks_of_node: int,
    gpu: int | None = None,
    samples_per_second: float | None = None,
    seed: int = 17,
) -> list[Verdict]:
    """The verdicts.

    Args:
        config: of the run; ``activation_checkpointing: null`` is decided in it where ``gpu`` is given.
        ranks: processes that will train together.
        ranks_of_node: those on this node.
        gpu: bytes of the smallest GPU; None: not known.
        samples_per_second: of all ranks together, for the hours of a pass.
        seed: of the samples that are looked at.
    """
    verdicts = [
        check("configuration", lambda: check_configuration(config, ranks, gpu is not None or None)),
        check("versions", check_versions),
        check("data set", lambda: check_data_set(config)),
        check("a pass", lambda: check_steps(config, samples_per_second)),
    ]
    try:
        encoder = SampleEncoder(load_processor(config.model), config.train_loader.dataset.max_seq_len)
        verdicts += check_samples(config, encoder, seed)
        picture = encoder.picture_bytes()
        verdicts.append(check("shared memory", lambda: check_shared_memory(config, picture, ranks, ranks_of_node)))
    except UserError as error:
        verdicts.append(Verdict("samples", FAIL, str(error)))
    verdicts.append(check("cache", lambda: check_cache(config)))
    try:
        memory = MemoryOfRun(config, several_pictures=several_pictures(config))
    except UserError as error:
        return [*verdicts, Verdict("model", FAIL, str(error))]
    return [
        *verdicts,
        check("checkpoints", lambda: check_checkpoints(config, memory)),
        check("GPU memory", lambda: check_memory(config, memory, ranks, gpu)),
        check("Hub", lambda: check_hub_rights(config)),
    ]


def check_order_of_stages(stages: Sequence[tuple[str, Config]]) -> Verdict:
    """Whether each stage can begin with the weights of the one before."""

    def look() -> Verdict:
        check_succession(stages)
        return Verdict("stages", OK, " -> ".join(name for name, _ in stages))

    return check("stages", look)


def check_configuration(config: Config, ranks: int, has_gpu: bool | None) -> Verdict:
    """What the configuration alone tells."""
    check_training(config, ranks, has_gpu)
    check_model_config(config.model)
    return Verdict("configuration", OK, f"{ranks} ranks, global_train_batch_size {config.global_train_batch_size}")
