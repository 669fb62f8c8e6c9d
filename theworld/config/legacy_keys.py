"""Keys that users bring from the HF Trainer version of TheWorld, and what they are called here."""

from __future__ import annotations

LEGACY_KEYS: dict[str, str] = {
    "dataset_name": "the data set is convert.json with convert.images",
    "train_dataset_path": "it is convert.json now",
    "image_folder": "it is convert.images now",
    "batch_size": "it is global_train_batch_size now, counted over all ranks and accumulation steps",
    "learning_rate": "it is optimizer.lr now",
    "num_epochs": "it is max_duration now, for example 2ep",
    "save_steps": "it is save_interval now, for example 500ba",
    "model_name": "it is model.gemma now",
    "cosmos_model_name": "it is model.cosmos now",
    "world_projection_mode": "it is model.projector.mode now",
    "projection_architecture": "it is model.projector.architecture now",
    "freeze_gemma_vision": "it is model.freeze.vision now",
    "freeze_gemma_language": "it is model.freeze.language now",
    "freeze_cosmos_vae": "it is model.freeze.vae now",
    "gradient_accumulation_steps": ("it follows from global_train_batch_size and device_train_microbatch_size now"),
    "warmup_steps": "it is scheduler.t_warmup now, for example 50ba",
    "weight_decay": "it is optimizer.weight_decay now",
    "max_grad_norm": "it is algorithms.gradient_clipping.clipping_threshold now",
    "use_gradient_checkpointing": "it is model.activation_checkpointing now",
    "mixed_precision": "it is precision now, for example amp_bf16",
    "save_total_limit": "it is save_num_checkpoints_to_keep now",
    "resume_from_checkpoint": "autoresume: true finds the newest by itself; load_path names one",
    "logging_steps": "it is log_interval now, for example 10ba",
    "log_to_tensorboard": "it is loggers.tensorboard now",
    "push_to_hub": "set hub.repo_id to upload at each save",
    "hub_model_id": "it is hub.repo_id now",
    "hub_private_repo": "it is hub.private now",
    "max_seq_length": "it is train_loader.dataset.max_seq_len now",
}
"""Same-named keys (num_samples, draw_bboxes, enable_world, num_workers) are found by their section."""
