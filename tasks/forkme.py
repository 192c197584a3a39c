"""Your own captioned images: copy this file, change the four constants, import it in a gin file.

The records are tf.train.Examples (`simvlm_jax.data.records.encode_example` and `write_shards`
make them) in <data folder>/FOLDER/<split>-00000-of-00001.array_record.
"""

import functools

import seqio
import tensorflow as tf

from simvlm_jax.data.features import task_features
from simvlm_jax.data.prefix import prefix_lm
from simvlm_jax.data.preprocessors import from_record
from simvlm_jax.data.sources import ArrayRecordSource
from simvlm_jax.data.vocabulary import default_vocabulary

NAME, FOLDER, SPLITS = "forkme_prefix_lm", "forkme", ("train", "validation")
STRING = tf.io.FixedLenFeature([], tf.string)
FIELDS = {"id": tf.io.FixedLenFeature([], tf.int64), "image/encoded": STRING, "caption": STRING}

seqio.TaskRegistry.add(
    NAME,
    source=ArrayRecordSource(FOLDER, SPLITS, FIELDS),
    preprocessors=[
        functools.partial(from_record, targets="{caption}", image="image/encoded"),
        prefix_lm,
    ],
    output_features=task_features(default_vocabulary(), image=True),
)
