"""Text-only documents, `data_dir/documents`: the other half of a pretraining batch."""

import functools

import seqio
import tensorflow as tf

from simvlm_jax.data.features import task_features
from simvlm_jax.data.preprocessors import OBJECTIVES, from_record, objective
from simvlm_jax.data.sources import ArrayRecordSource
from simvlm_jax.data.vocabulary import default_vocabulary

SPLITS = ("train", "validation")
FIELDS = {
    "id": tf.io.FixedLenFeature([], tf.int64),
    "text": tf.io.FixedLenFeature([], tf.string),
}


def register(name: str, objective_name: str) -> None:
    """Registers one task over the documents with an objective of `OBJECTIVES`."""
    seqio.TaskRegistry.add(
        name,
        source=ArrayRecordSource("documents", SPLITS, FIELDS),
        preprocessors=[functools.partial(from_record, targets="{text}"), objective(objective_name)],
        output_features=task_features(default_vocabulary(), image=False),
    )


for _objective in OBJECTIVES:  # documents_prefix_lm, documents_span_corruption, documents_lm
    register(f"documents_{_objective}", _objective)
