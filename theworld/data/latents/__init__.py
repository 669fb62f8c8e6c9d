"""World latents computed once: in the shards' own column, or in a data set of the same generations beside them."""
