"""The ablation's data, `data_dir/ablation`: pairs of three qualities, and questions."""

import functools

import seqio
import tensorflow as tf

from simvlm_jax.data.features import task_features
from simvlm_jax.data.preprocessors import OBJECTIVES, from_record, objective, source_to_target
from simvlm_jax.data.sources import ArrayRecordSource
from simvlm_jax.data.vocabulary import default_vocabulary

STRING = tf.io.FixedLenFeature([], tf.string)
PAIR = {"id": tf.io.FixedLenFeature([], tf.int64), "image/encoded": STRING, "caption": STRING}
TEXTS = ("question", "answer", "kind", "codepoints")
QUESTION = {**PAIR, **dict.fromkeys(TEXTS, STRING)}
del QUESTION["caption"]


def register(name, folder, splits, fields, to_tokens, **texts) -> None:
    """Registers one task over images of the ablation's data."""
    convert = functools.partial(from_record, image="image/encoded", **texts)
    seqio.TaskRegistry.add(
        name,
        source=ArrayRecordSource(f"ablation/{folder}", splits, fields),
        preprocessors=[convert, to_tokens],
        output_features=task_features(default_vocabulary(), image=True),
    )


for _quality in ("noisy", "tenth", "clean"):
    for _objective in OBJECTIVES:  # ablation_noisy_prefix_lm, ...
        _name, _tokens = f"ablation_{_quality}_{_objective}", objective(_objective)
        register(_name, _quality, ("train",), PAIR, _tokens, targets="{caption}")
register(
    "ablation_questions", "questions", ("train", "test"), QUESTION, source_to_target,
    inputs="{question}", targets="{answer}",
)  # fmt: skip
