"""The node's own copies: shards and latents as they are needed, within the disk's room, safe from kills."""
