"""seqio tasks, one file per data set; importing this registers them all and reads no file."""

from simvlm_jax.tasks import documents, openmoji, vqa_v2

__all__ = ["documents", "openmoji", "vqa_v2"]
