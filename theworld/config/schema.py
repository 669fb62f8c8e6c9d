"""The one YAML of a run, from raw files to checkpoint.

Names are LLM Foundry's where it has them. Every key that exists is declared here; an unknown key
is an error (:mod:`theworld.config.load`), impossible values are caught by :mod:`theworld.train.check_training`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

MISSING = "???"
STAGE_NAME = r"[A-Za-z0-9][A-Za-z0-9_-]*"
"""What a stage may be called: it is a folder's name."""


@dataclass
class ConvertConfig:
    """``convert/to_mds.py``: raw files to MDS."""

    json: str = MISSING
    """The conversations: a JSON array or JSON lines file, plain, gzip or zstd, a Parquet file, a folder of such files,
    hf://datasets/OWNER/NAME/FILE, or datasets:OWNER/NAME[@REVISION][?name=CONFIGURATION&split=SPLIT], which is
    streamed (docs/formats.md)."""
    format: str = "auto"
    """What the entries look like: openspatial, llava, messages, refspatial, warehouse, spatialrgpt_bench, captions, or
    module:function of your own (docs/formats.md). auto: told by the first entries, and said."""
    boxes: str = "auto"
    """What numbers of boxes and points are, in other formats than openspatial: pixels, shares (0..1), thousandths
    (0..1000); auto: shares where all of an entry's lie within 0..1, else pixels."""
    json_cache: str | None = None
    """Folder for a JSON that comes from the Hub; null: $TMPDIR."""
    images: str | None = MISSING
    """Folder with <filename>.jpg (.jpeg .png .webp), flat or sharded in sub-folders; in other formats than openspatial
    the folder that the entries' paths are relative to, or null: the pictures are inside of the entries (Parquet)."""
    image_folders: list[str] | None = None
    """Sub-folders of images to take from, best first, as patterns such as [train, "*"]; "." is images itself, "*" all.
    null: all, but nothing that looks like depth maps or masks, and no id with several files that differ."""
    out: str = MISSING
    """Where generations of MDS shards go: a folder, or a URL that Streaming can upload to."""
    num_samples: int | None = None
    """Stop after this many samples; null: all."""
    workers: int | None = None
    """Processes that write shards; null: as many as there are cores."""
    size_limit: int | str = "64mb"
    """Largest size of a shard before compression: bytes, or a string like 64mb."""
    compression: str | None = None
    """Streaming's name for a compression such as zstd:3; null: none, JPEG does not compress."""
    verify: str = "header"
    """How an image is checked before it is written: header (type, size, end marker) or decode (every pixel, which also
    finds data lost in the middle); its cost is in docs/checks.md."""
    most_images: int = 16
    """Images that an entry may have, in other formats than openspatial; one with more is left out. Of a sample with
    several the model sees each, with a world for each."""
    most_pixels: int = 50_000_000
    """Pixels that a picture may have by its header; decoding takes up to 8 bytes for each. OpenImages' photos have
    about a million."""
    holdout: float = 0.0
    """Share of ids, by a hash of the id, that goes to <out>-eval instead."""
    rescale_boxes: bool = True
    """Accept a picture that was annotated (rle.size) in another size of the same picture, and scale its boxes when it
    is decoded; false: reject it."""
    keep_masks: bool = False
    """Whether to keep the COCO run-length masks, about 80 % of the JSON, as a column."""
    world_latents: bool = False
    """Whether to compute the world latents now and keep them as a column, 131 kB a sample at 512 x 512, so that
    training needs no VAE. For a data set that exists: convert/add_latents.py."""


@dataclass
class DownloadConfig:
    """``convert/download_openimages.py``: the images that the JSON names, to ``convert.images``."""

    list: str | None = None
    """File of ids, ``train/<id>`` or bare, one a line, # for comments; null: the ids of convert.json."""
    workers: int = 64
    """Simultaneous connections."""
    retries: int = 8
    """How often an image is tried again in one run, with growing pauses, before it is left to the next run."""
    timeout: float = 30.0
    """Seconds without a byte after which a connection is given up."""
    endpoint: str | None = None
    """Another S3 server that has the bucket, as http(s)://HOST[:PORT]; null: Amazon's in us-east-1."""
    source: str = "images"
    """images: one request each; tar: stream the public tar of each first digit of which more than half is wanted."""
    layout: str = "flat"
    """flat: <id>.jpg; sharded: ab/<id>.jpg after the id's first two characters."""
    to: str = "images"
    """images: files in convert.images; mds: straight on into convert.out, files are removed once they are in shards."""
    spool_limit: int | str = "4gb"
    """With to: mds, how many bytes of images may wait to be converted."""
    most_missing: float = 0.05
    """Largest share of the images asked for that may be missing for good; more refusals are taken for an outage."""
    retry_missing: bool = False
    """Ask again for images that were missing for good (missing.jsonl)."""


@dataclass
class ProjectorConfig:
    """How a world latent (16, S/8, S/8) becomes tokens of the language model's width."""

    mode: str = "patch"
    """spatial: one token per latent position; channel: 16 tokens; patch: one per patch x patch positions, of all their
    values; pool: one per patch x patch positions, of the least and the greatest value of each channel; resampler: one
    per learned query, which reads all positions by cross-attention."""
    architecture: str = "mlp"
    """mlp (two layers, GELU between) or linear."""
    patch: int = 4
    """Side of a patch in latent positions, for modes patch and pool."""
    queries: int = 64
    """Learned queries, for mode resampler."""


@dataclass
class FreezeConfig:
    """Which parts keep their weights."""

    vision: bool = True
    """SigLIP and Gemma's own multimodal projector."""
    language: bool = True
    """The language model, embeddings and output head included."""
    vae: bool = True
    """The Cosmos VAE encoder."""
    projector: bool = False
    """The world projector; true leaves it as it was drawn at the start, for comparison (recipes/ablate.py)."""


@dataclass
class LoraConfig:
    """Adapters of low rank (LoRA) on linear layers of frozen parts. They train and are saved instead of the layers."""

    rank: int = 16
    """Inner width of an adapter."""
    alpha: float = 32.0
    """An adapter's output is multiplied by alpha / rank."""
    dropout: float = 0.0
    """Share of an adapter's inputs that is zeroed in training."""
    targets: list[str] | None = None
    """Kinds of layers: q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj of the language model; q_proj,
    k_proj, v_proj, out_proj, fc1, fc2 of the vision tower. null: all of them."""
    parts: list[str] = field(default_factory=lambda: ["language"])
    """language, vision, or both. Their own weights must be frozen (model.freeze)."""


@dataclass
class ModelConfig:
    """TheWorld: Gemma 3 with world tokens from the Cosmos VAE."""

    gemma: str = MISSING
    """Gemma 3: a Hub repo, a folder, or builtin:tiny for a random one of a few hundred kB."""
    gemma_revision: str | None = None
    """Branch, tag or commit of the Gemma repo."""
    cosmos: str = MISSING
    """Repo or folder whose sub-folder vae holds the AutoencoderKLWan, or builtin:tiny."""
    cosmos_revision: str | None = None
    """Branch, tag or commit of the Cosmos repo."""
    enable_world: bool = True
    """Whether there are world tokens at all; false gives plain Gemma 3."""
    world_image_size: int = 512
    """Side in pixels of the square picture that the VAE sees."""
    projector: ProjectorConfig = field(default_factory=ProjectorConfig)
    freeze: FreezeConfig = field(default_factory=FreezeConfig)
    lora: LoraConfig | None = None
    """Adapters on linear layers (needs theworld[lora]): model.lora={} for the defaults; rank, alpha, dropout, targets
    (kinds of layers), parts (language, vision). null: none. See docs/stages.md."""
    load_in_4bit: bool = False
    """Keep the linear layers of the parts that have adapters in 4 bits (QLoRA: NF4, double quantisation; needs
    theworld[qlora]): about a quarter of their memory in bfloat16. See docs/stages.md."""
    frozen_dtype: str | None = None
    """fp32 or bf16, the precision that frozen parts are kept in; what trains is always fp32.
    null: bf16 when precision is amp_bf16, else fp32."""
    attn_implementation: str = "sdpa"
    """Attention of language model and vision tower: sdpa (torch chooses the kernel), eager (all scores in memory, for
    comparison), or flex_attention (on a GPU only)."""
    activation_checkpointing: bool | None = None
    """Recompute activations in the backward pass: less memory, about a quarter more time. null: only if samples of
    max_seq_len would not fit the GPU without it."""


@dataclass
class DatasetConfig:
    """The MDS data set as the trainer reads it."""

    remote: str | None = None
    """Where the converter wrote; null: local is read in place."""
    local: str | None = None
    """Node-local cache; null: a folder under $TMPDIR that follows from remote alone."""
    split: str | None = None
    """Sub-folder of remote and local."""
    draw_bboxes: bool = True
    """Draw the regions' boxes and labels into the picture."""
    world_latents: bool | None = None
    """Train on precomputed latents (convert/add_latents.py): true: they must be there; false: never;
    null: where every sample has them and the VAE is frozen."""
    max_seq_len: int = 4096
    """Most tokens of a sample; whole turns beyond them are cut, and counted."""
    shuffle: bool = True
    """Shuffle the samples of a pass."""
    shuffle_seed: int | None = None
    """null: seed."""
    num_canonical_nodes: int | None = None
    """Parts of the data that are read side by side, so that with up to this many nodes no shard goes to two. A pass
    keeps what it began with. null: the number of nodes when the pass begins; with fewer than 8 nodes, twice, four or
    eight times it, so that a batch mixes more shards."""
    shuffle_block_size: int = 4096
    """Samples of such a part among which one is drawn, a window that slides. More mixes better and needs more room in
    the cache: about num_canonical_nodes x shuffle_block_size samples in all. A pass keeps what it began with."""
    patience: float = 600.0
    """Seconds to try again, with growing pauses, where remote or a shard cannot be reached; then the run saves and
    leaves with exit code 75."""
    cache_limit: int | str | None = None
    """Most bytes of shards kept in local; null: what fits the free disk. Never with remote null."""


@dataclass
class SourceConfig:
    """One of several data sets. Of repeat, choose and proportion all of them have the same one, or none."""

    name: str = MISSING
    """Letters, digits, dots, dashes, underscores; a sample is called name/id."""
    remote: str | None = None
    """Where the converter wrote."""
    local: str | None = None
    """In place of remote: a folder that is read where it lies. The cache is the loader's dataset.local."""
    split: str | None = None
    """Sub-folder of it."""
    repeat: float | None = None
    """Copies of every sample in a pass, fractions allowed; 1 where nothing is said."""
    choose: int | None = None
    """Copies from this data set in a pass."""
    proportion: float | None = None
    """Share of a pass, which has as many samples as all data sets together; scaled so that all sum to 1."""
    world: bool = True
    """Whether its samples have world tokens, where model.enable_world is true."""


@dataclass
class LoaderConfig:
    """One data loader."""

    dataset: DatasetConfig = field(default_factory=DatasetConfig)
    datasets: list[SourceConfig] | None = None
    """Several data sets, mixed: [{name: regions, remote: ..., repeat: 2}, ...], with one of repeat, choose, proportion.
    What they have in common, such as max_seq_len, stands in dataset, whose remote is null. Those of eval_loader are
    evaluated one by one. See docs/mixing.md."""
    world: str = "own"
    """Whose world tokens a sample gets: own; or shuffled, those of another picture of the rank's batch, for comparison
    (recipes/ablate.py)."""
    num_workers: int = 4
    """Worker processes per rank; 0 decodes in the training process."""
    prefetch_factor: int = 2
    """Batches that each worker keeps ready."""
    expected_samples: int | str | None = None
    """Samples that a pass will have when the download is complete. The learning-rate schedule runs over them, and a
    pass that has used up what is there waits for the rest. auto: what the JSON names, without what is rejected or
    missing for good. A number is reduced by what is rejected or missing for good since it was set. null: what is there
    is enough; the schedule runs over that, and the rate rises again where the pass has grown."""
    wait: float = 600.0
    """Seconds to wait for expected samples when those that are there are used up; then the run, which has saved, leaves
    with exit code 75 and goes on when it is started again."""
    give_up: float = 86400.0
    """Seconds without a new sample, a rejection or a downloaded image after which expected samples are no longer waited
    for: the pass ends without them, with exit code 0 and a line that says how many are missing."""


@dataclass
class HubConfig:
    """Upload of checkpoints to the Hugging Face Hub."""

    repo_id: str | None = None
    """OWNER/NAME of a model repo, made if it is not there; null: no upload. The token is HF_TOKEN or the one of
    huggingface-cli login. With autoresume and an empty save_folder the run goes on from this repo."""
    private: bool = True
    """Whether a repo that is made is private; one that exists stays as it is."""
    every: int = 1
    """Upload after every so many saves, and always the last one of a run."""
    wait: float = 1800.0
    """Seconds that the end of training waits for the last upload at the most. When the run is stopped by a signal,
    it is what is left of preemption.grace."""


@dataclass
class PreemptionConfig:
    """How a run stops when the cluster wants its nodes back."""

    signals: list[str] = field(default_factory=lambda: ["SIGTERM", "SIGUSR1"])
    """Signals after which the run saves at the end of the batch and leaves with exit code 85."""
    grace: float | None = None
    """Seconds that a save may take: the run stops by itself this long before the job's time is over.
    null: what slurm/train.sbatch has found, else 60."""


@dataclass
class WatchdogConfig:
    """What is done where a run stands still. Waits that are meant to last do not count: for samples
    (train_loader.wait), with patience, for a shard, a save, the last upload, the start."""

    warn: float = 60.0
    """Seconds without a batch after which the log says each minute which rank's loader or which rank is waited for."""
    abort: float = 900.0
    """Seconds without a batch after which the stacks are written to the log and the run ends with exit code 75."""


@dataclass
class ProfilerConfig:
    """Batches of a pass whose operators are timed: so many are skipped, then some are waited for, warmed up on and
    recorded, again and again. Names are Composer's (cyclic_schedule)."""

    skip_first: int = 2
    """Batches at the beginning of a pass, or after a resume, that are left out."""
    wait: int = 0
    """Batches before each warm-up that are left out."""
    warmup: int = 1
    """Batches that are timed, but not recorded."""
    active: int = 4
    """Batches that are recorded in one trace."""
    repeat: int = 1
    """Traces of a pass; 0: as many as it has room for."""
    shapes: bool = False
    """Record the shapes of what goes into operators."""
    memory: bool = False
    """Record what operators allocate."""
    stack: bool = False
    """Record from which line of Python each is called: the trace grows many times."""


@dataclass
class Config:
    """A run."""

    run_name: str = MISSING
    """Names the run in logs and trackers."""
    seed: int = 17
    """Seed of newly initialised weights, and of the shuffling unless shuffle_seed is set."""
    download: DownloadConfig = field(default_factory=DownloadConfig)
    convert: ConvertConfig = field(default_factory=ConvertConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    train_loader: LoaderConfig = field(default_factory=LoaderConfig)
    eval_loader: LoaderConfig | None = None
    """The held-out share (convert.holdout) as the trainer reads it, with the keys of train_loader; null: no
    evaluation."""
    eval_interval: int | str = "1ep"
    """Composer's time string between evaluations."""
    eval_subset_num_batches: int = -1
    """Batches of each evaluation; -1: all."""

    max_duration: int | str = "1ep"
    """Composer's time string: 1ep, 500ba, ...; a plain number means epochs. Beside stages each of them has its own."""
    stages: list[dict[str, Any]] | None = None
    """Stages, trained in order by one command, each from the last one's weights: [{name: align, max_duration: 1ep,
    freeze: {...}}, ...]. A stage may have any section of the top (optimizer, train_loader, model: {lora: ...}, ...),
    merged over it; freeze stands for model.freeze. One with data of its own says in convert what that is made of. Each
    has its folder save_folder/<name>. See docs/stages.md."""
    global_train_batch_size: int = MISSING  # type: ignore[assignment]
    """Samples per optimizer step, over all ranks."""
    device_train_microbatch_size: int | str = "auto"
    """Samples per forward pass on one device, or auto (needs a GPU)."""
    precision: str = "amp_bf16"
    """Composer's precision: amp_bf16 on GPUs, fp32 on a CPU."""
    device: str | None = None
    """gpu or cpu; null: a GPU if there is one."""

    optimizer: dict[str, Any] = field(default_factory=lambda: {"name": "decoupled_adamw", "lr": 1.0e-4})
    """name and settings: a name of Composer's or LLM Foundry's, or module:Class. groups: {projector: {lr: 1e-3},
    vision: {...}, language: {...}, vae: {...}} gives parts their own lr, weight_decay, betas, eps or momentum, all
    under one schedule; decay_norms_and_biases: false spares these the weight decay. See docs/stages.md."""
    scheduler: dict[str, Any] = field(default_factory=lambda: {"name": "cosine_with_warmup", "t_warmup": "50ba"})
    """name and settings: a name of Composer's or LLM Foundry's, or module:Class."""
    algorithms: dict[str, Any] = field(default_factory=dict)
    """name: settings, for example gradient_clipping: {clipping_type: norm, clipping_threshold: 1.0}."""
    callbacks: dict[str, Any] = field(default_factory=dict)
    """name: settings, for example speed_monitor: {window_size: 10}."""
    loggers: dict[str, Any] = field(default_factory=dict)
    """name: settings, for example tensorboard: {}."""
    code_paths: list[str] = field(default_factory=list)
    """Your own code, for names such as callbacks: {my_module:MyCallback: {}}: Python files, which are imported, or
    folders, which go on the import path."""
    transform: str | None = None
    """module:function, your own change of each training sample (augmentation): DecodedSample to DecodedSample, called
    after the boxes are drawn; chance is to be drawn from sample.seed. Its file or folder in code_paths."""
    progress_bar: bool | None = None
    """null: a bar on a terminal, plain lines otherwise."""
    profiler: ProfilerConfig | None = None
    """Time the operators of some batches, {} for four at the start: traces for Perfetto in save_folder/traces, and the
    ten costliest operators in the log. null: not."""
    log_interval: str = "10ba"
    """How often plain lines are printed when there is no bar."""

    most_lost_steps: int | None = 3
    """Steps in a row whose gradient is not finite, each left out, after which the run ends with exit code 1; null: it
    goes on. With amp_fp16 a step that the scaler leaves out to find its scale does not count."""
    save_folder: str | None = None
    """Checkpoints, config.yaml, ledger and TensorBoard logs of this run."""
    save_interval: int | str = "1ep"
    """Composer's time string between checkpoints."""
    save_num_checkpoints_to_keep: int = 3
    """-1 keeps all."""
    autoresume: bool = True
    """Go on from the newest checkpoint in save_folder, if there is one."""
    load_path: str | None = None
    """A checkpoint to start from when there is nothing to resume: a path, or hf://OWNER/NAME[@REVISION] of a repo that
    a run has uploaded to."""
    load_weights_only: bool = False
    """With load_path: take its weights, but start a new run."""
    preflight: bool = False
    """Before anything is loaded, look at all that recipes/preflight.py can tell of the run, and refuse it if it would
    fail."""
    report: bool = True
    """A run that has ended writes ``report.html``, its page, to the save_folder."""
    trust_checkpoints: bool = False
    """Read checkpoints on disk with everything in them, code included, and whoever owns them; false: as data only, and
    only files of your own or of root that not everybody may write."""
    hub: HubConfig = field(default_factory=HubConfig)
    preemption: PreemptionConfig = field(default_factory=PreemptionConfig)
    watchdog: WatchdogConfig | None = field(default_factory=WatchdogConfig)
    """warn: seconds without a batch after which the log says each minute what is waited for; abort: seconds after which
    the stacks are written to the log and the run ends with exit code 75. Waits that may last (for samples or a shard,
    saves, the last upload) do not count. null: neither."""
    dist_timeout: float = 3600.0
    """Seconds after which torch itself gives up a rank that the others wait for; a first download of shards must fit.
    The watchdog ends a run that stands still long before."""
    compile_config: dict[str, Any] | None = None
    """Settings of torch.compile, for example {} or {mode: max-autotune}; null: nothing is compiled. Batches are then
    padded to a multiple of 256 tokens."""
    parallelism_config: dict[str, Any] | None = None
    """Composer's parallelism_config, for example fsdp: {...}; null: DDP."""
