"""SimVLM in JAX/Flax: one PrefixLM objective over images and text (arXiv 2108.10904)."""
