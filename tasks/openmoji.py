"""OpenMoji: drawings with names in English and German, `data_dir/openmoji`."""

import functools

import seqio
import tensorflow as tf

from simvlm_jax.data.features import task_features
from simvlm_jax.data.preprocessors import (
    OBJECTIVES,
    Preprocessor,
    from_record,
    objective,
    source_to_target,
)
from simvlm_jax.data.sources import ArrayRecordSource
from simvlm_jax.data.vocabulary import default_vocabulary

PROMPT = "a picture of"  # paper, section 4.3: the prefix of zero-shot captioning
SPLITS = ("train", "variants", "concepts")
TEXT_FIELDS = ("caption/en", "caption/de", "group", "codepoints", "concept")
FIELDS = {
    "id": tf.io.FixedLenFeature([], tf.int64),
    "image/encoded": tf.io.FixedLenFeature([], tf.string),
    **{name: tf.io.FixedLenFeature([], tf.string) for name in TEXT_FIELDS},
}


def register(
    name: str, to_tokens: Preprocessor, targets: str, inputs: str | None = None, image: bool = True
) -> None:
    """Registers one task over the drawings.

    Args:
      name: the task's name.
      to_tokens: turns the texts into the two token sides.
      targets: the text to predict, with record fields in braces.
      inputs: the input text likewise, where `to_tokens` does not make it.
      image: whether the model sees the drawing.
    """
    seqio.TaskRegistry.add(
        name,
        source=ArrayRecordSource("openmoji", SPLITS, FIELDS),
        preprocessors=[
            functools.partial(
                from_record,
                targets=targets,
                inputs=inputs,
                image="image/encoded" if image else None,
            ),
            to_tokens,
        ],
        output_features=task_features(default_vocabulary(), image=image),
    )


for _objective in OBJECTIVES:  # openmoji_prefix_lm, openmoji_span_corruption, openmoji_lm
    register(f"openmoji_{_objective}", objective(_objective), PROMPT + " {caption/en}")
register("openmoji_captions", source_to_target, "{caption/en}", inputs=PROMPT)
register("openmoji_en_de", source_to_target, "{caption/de}", inputs="{caption/en}")
register("openmoji_en_de_text", source_to_target, "{caption/de}", "{caption/en}", image=False)
