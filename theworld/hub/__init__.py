"""Checkpoints on the Hugging Face Hub: checkpoint file -> folder of safetensors and JSON -> one commit, and back."""
