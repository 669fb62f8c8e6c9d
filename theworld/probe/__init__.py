"""What a linear reader tells from a world latent: the sample's geometry, without any language model."""
