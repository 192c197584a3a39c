"""seqio tasks, one file per data set; importing this registers them all and reads no file."""

from simvlm_jax.tasks import ablation, documents, openmoji

__all__ = ["ablation", "documents", "openmoji"]
