"""Records to examples of a classification task: what the encoder reads, what the decoder, labels.

Paper (arXiv 2108.10904) section 4.2.1 and appendix B: the decoder reads a question (a hypothesis,
a statement) from the start of the sequence on, and its last token is classified. There is no text
to predict.
"""

from collections.abc import Mapping, Sequence

import seqio
import tensorflow as tf

from simvlm_jax.data.features import task_features
from simvlm_jax.data.mapping import map_examples
from simvlm_jax.data.prefix import UNLIMITED, Lengths, encode_all, limits
from simvlm_jax.data.preprocessors import MAX_TEXT_BYTES, fill, value_of
from simvlm_jax.data.seeds import augmentation_seed
from simvlm_jax.data.sources import RecordSource
from simvlm_jax.data.vocabulary import default_vocabulary

IMAGE, SECOND_IMAGE = "image/encoded", "second_image/encoded"


def register_classification(
    name: str,
    source: RecordSource,
    inputs: str = "",
    targets: str = "",
    images: Sequence[str] = (),
    labels: int = 1,
) -> None:
    """Registers a classification task.

    Args:
      name: of the task.
      source: of records with `label` (int64, -1 where there is none), or, for several labels with
        a score each, `labels` (int64 [labels]) and `label_scores` (float32 [labels]).
      inputs: text for the encoder, with record fields in braces.
      targets: text for the decoder likewise.
      images: fields that hold an encoded image: none, one or two.
      labels: how many labels a record has.
    """

    def named(dataset: tf.data.Dataset) -> tf.data.Dataset:
        return labelled(dataset, inputs, targets, images)

    seqio.TaskRegistry.add(
        name,
        source=source,
        preprocessors=[named, classify],
        output_features=task_features(
            default_vocabulary(), bool(images), labels, second_image=len(images) > 1
        ),
    )


def labelled(
    dataset: tf.data.Dataset, inputs: str, targets: str, images: Sequence[str] = ()
) -> tf.data.Dataset:
    """Names a record's parts as a classification task has them; `from_record` is its sibling.

    A text may be blank: a single sentence stands in the encoder, and the decoder then reads the
    start of the sequence alone. Where a text is over `MAX_TEXT_BYTES` it is left out, and the
    scores are 0: nothing to learn.

    Args:
      dataset: records with an integer `id`, and labels as `register_classification` says.
      inputs: text for the encoder, with record fields in braces.
      targets: text for the decoder likewise.
      images: fields that hold an encoded image: none, one or two.

    Returns:
      The dataset with string `inputs` and `targets`, `labels` int32 [K], `label_scores` float32
      [K], int64 [2] `example_seed` and, with images, string [1] `image` and `second_image`.
    """

    def convert(example: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        made = {"example_seed": augmentation_seed(example)}
        usable = tf.constant(True)
        for side, template in (("inputs", inputs), ("targets", targets)):
            text = fill(template, example)
            short = tf.strings.length(text) <= MAX_TEXT_BYTES
            made[side], usable = tf.where(short, text, ""), usable & short
        made["labels"], scores = _labels(example)
        made["label_scores"] = tf.where(usable[..., None], scores, 0.0)
        for feature, field in zip(("image", "second_image"), images, strict=False):
            made[feature] = value_of(example, field)[..., None]
        return {**{n: value for n, value in example.items() if n not in images}, **made}

    return map_examples(dataset, convert, at_once=convert)


def classify(
    dataset: tf.data.Dataset, sequence_length: Lengths, output_features: Mapping[str, seqio.Feature]
) -> tf.data.Dataset:
    """Tokenises both texts; neither has an end of sequence.

    The decoder reads the start of the sequence first, so its text is cut to one token less than
    the length of `targets`. Worked example, {"inputs": 2, "targets": 3}:

        inputs "a b c"      -> [21 22]
        targets "d e f"     -> [24 25]      the decoder reads 0 24 25

    Args:
      dataset: examples with string `inputs` and `targets`.
      sequence_length: most tokens of each side; None for no limit.
      output_features: seqio's, for the vocabularies.

    Returns:
      The dataset with int32 `inputs` and `targets`, the texts kept as `inputs_pretokenized` and
      `targets_pretokenized`.

    Raises:
      UserError: `targets` has no room for the start of the sequence and one token.
    """
    inputs_limit, targets_limit = limits(sequence_length)
    unlimited = targets_limit >= UNLIMITED
    most = {"inputs": inputs_limit, "targets": targets_limit - (0 if unlimited else 1)}

    def tokenize(example: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        made = {}
        for name, limit in most.items():
            tokens = output_features[name].vocabulary.encode_tf(example[name])
            made[f"{name}_pretokenized"] = example[name]
            made[name] = tf.cast(tokens, tf.int32)[:limit]
        return {**example, **made}

    def tokenize_all(examples: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        made = {
            name: encode_all(output_features[name].vocabulary, examples[name], limit)[0]
            for name, limit in most.items()
        }
        return {**examples, **made}

    return map_examples(dataset, tokenize, at_once=tokenize_all)


def _labels(example: Mapping[str, tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
    """(int32 [K], float32 [K]) as the record has them; one label, where it has one, scores 1."""
    if "labels" in example:
        return tf.cast(example["labels"], tf.int32), example["label_scores"]
    label = tf.cast(value_of(example, "label"), tf.int32)[..., None]
    return tf.maximum(label, -1), tf.cast(label >= 0, tf.float32)
