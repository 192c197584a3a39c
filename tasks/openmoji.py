"""OpenMoji: drawings with names in English and German, `data_dir/openmoji`."""

import functools
from collections.abc import Callable, Sequence

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
from simvlm_jax.evaluation.captions import score_captions
from simvlm_jax.evaluation.translation import score_translations

PROMPT = "a picture of"  # paper, section 4.3: the prefix of zero-shot captioning
SPLITS = ("train", "variants", "concepts")
TEXT_FIELDS = ("caption/en", "caption/de", "group", "codepoints", "concept")
FIELDS = {
    "id": tf.io.FixedLenFeature([], tf.int64),
    "image/encoded": tf.io.FixedLenFeature([], tf.string),
    **{name: tf.io.FixedLenFeature([], tf.string) for name in TEXT_FIELDS},
}


Metric = Callable[[Sequence[str], Sequence[str]], dict[str, float]]


def caption_metrics(targets: Sequence[str], predictions: Sequence[str]) -> dict[str, float]:
    """Exact match, CIDEr and variety of captions, in seqio's order of arguments."""
    return score_captions(predictions, targets)


def translation_metrics(targets: Sequence[str], predictions: Sequence[str]) -> dict[str, float]:
    """ChrF and exact match of translations, in seqio's order of arguments."""
    return score_translations(predictions, targets)


def register(
    name: str,
    to_tokens: Preprocessor,
    targets: str,
    inputs: str | None = None,
    image: bool = True,
    metrics: Sequence[Metric] = (),
) -> None:
    """Registers one task over the drawings.

    Args:
      name: the task's name.
      to_tokens: turns the texts into the two token sides.
      targets: the text to predict, with record fields in braces.
      inputs: the input text likewise, where `to_tokens` does not make it.
      image: whether the model sees the drawing.
      metrics: what seqio's Evaluator computes.
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
        metric_fns=list(metrics),
    )


TO_GERMAN = {"targets": "{caption/de}", "inputs": "{caption/en}", "metrics": [translation_metrics]}
for _objective in OBJECTIVES:  # openmoji_prefix_lm, openmoji_span_corruption, openmoji_lm
    register(f"openmoji_{_objective}", objective(_objective), PROMPT + " {caption/en}")
register("openmoji_captions", source_to_target, "{caption/en}", PROMPT, metrics=[caption_metrics])
register("openmoji_en_de", source_to_target, **TO_GERMAN)
register("openmoji_en_de_text", source_to_target, **TO_GERMAN, image=False)
