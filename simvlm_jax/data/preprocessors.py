"""seqio preprocessors that tasks are made of: records to texts, texts to token sides."""

import functools
import string
from collections.abc import Callable, Mapping

import seqio
import tensorflow as tf

from simvlm_jax.data.mapping import map_examples
from simvlm_jax.data.prefix import (
    Lengths,
    close,
    close_all,
    encode_all,
    limits,
    lm,
    prefix_lm,
)
from simvlm_jax.data.seeds import CHOICE, augmentation_seed, example_key, uniform_integer
from simvlm_jax.data.span_corruption import span_corruption
from simvlm_jax.errors import UserError

Preprocessor = Callable[..., tf.data.Dataset]
MAX_TEXT_BYTES = 1 << 20  # tokenizing ten times as much takes seconds
BLANK = r"[\s\p{Z}\p{Cf}]*"  # also the blanks and invisible signs of other scripts
OBJECTIVES: Mapping[str, Preprocessor] = {
    "prefix_lm": prefix_lm,
    "span_corruption": span_corruption,
    "lm": lm,
}


def objective(name: str, **options) -> Preprocessor:
    """Returns the preprocessor of a pretraining objective.

    Args:
      name: "prefix_lm" (the paper's), "span_corruption" or "lm" (its ablations).
      **options: handed to it, for example `distribution="zero"`.

    Returns:
      A seqio preprocessor that takes string `targets` and gives int32 `inputs` and `targets`.

    Raises:
      UserError: there is no such objective.
    """
    if name not in OBJECTIVES:
        raise UserError(f"There is no objective {name!r}; use one of {', '.join(OBJECTIVES)}.")
    return functools.partial(OBJECTIVES[name], **options)


def from_record(
    dataset: tf.data.Dataset,
    targets: str,
    inputs: str | None = None,
    image: str | None = None,
    second_image: str | None = None,
) -> tf.data.Dataset:
    """Names a record's parts as the objectives expect them.

    Example: `targets="a picture of {caption/en}"` puts the field `caption/en` after the prompt.
    The fields of the record stay for evaluation, all but the image's own. Where a text cannot be
    used (not UTF-8, over `MAX_TEXT_BYTES`, or a field of the target that is blank) the target is
    empty: nothing to learn, loss weight 0. A NUL byte is a character that no vocabulary knows.

    Args:
      dataset: records with an integer `id`.
      targets: a text, with record fields in braces.
      inputs: the same for the input text, where the objective does not make it.
      image: the field that holds the encoded image.
      second_image: the field of the other one, of tasks with two.

    Returns:
      The dataset with string `targets` (and `inputs`), int64 [2] `example_seed` and, with images,
      string [1] `image` (and `second_image`).

    Raises:
      UserError: a field that the records lack, or records without an `id`.
    """

    def convert(example: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        usable = _usable(targets, example, blank=False)
        made = {"example_seed": augmentation_seed(example)}
        if inputs is not None:
            sound = _usable(inputs, example, blank=True)
            usable &= sound
            made["inputs"] = tf.where(sound, fill(inputs, example), "")
        made["targets"] = tf.where(usable, fill(targets, example), "")
        fields = {"image": image, "second_image": second_image}
        for name, field in fields.items():
            if field is not None:
                made[name] = value_of(example, field)[..., None]
        kept = {n: value for n, value in example.items() if n not in fields.values()}
        return {**kept, **made}

    return map_examples(dataset, convert, at_once=convert)


def pick_one(dataset: tf.data.Dataset, field: str) -> tf.data.Dataset:
    """Keeps one of several values of a field: one of an image's captions, of a question's answers.

    Which one is a function of (seed, epoch, example id): another one from epoch to epoch, each as
    often as the others in the long run, and the same on any number of hosts. Two fields with as
    many values keep those of the same place, so that lists side by side stay together.

    Args:
      dataset: records with an integer `id`.
      field: with any number of values, shape [n] (FixedLenSequenceFeature in the source).

    Returns:
      The dataset, of that field a scalar: empty or 0 where it had no value.

    Raises:
      UserError: the records lack the field, or it is no list, or they have no `id`.
    """

    def pick(example: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        values = _field(example, field)
        if values.shape.rank != 1:
            raise UserError(
                f"The field {field!r} has the shape {values.shape} and not several values; make it "
                "a FixedLenSequenceFeature of the source."
            )
        last = tf.maximum(tf.size(values) - 1, 0)
        with_spare = tf.concat([values, tf.zeros([1], values.dtype)], axis=0)
        chosen = with_spare[uniform_integer(example_key(example, CHOICE), 0, last)]
        return {**example, field: chosen}

    return map_examples(dataset, pick)


def source_to_target(
    dataset: tf.data.Dataset, sequence_length: Lengths, output_features: Mapping[str, seqio.Feature]
) -> tf.data.Dataset:
    """Tokenises a given input text and the text to predict: captioning with a prompt, translation.

    Each side is cut to its limit. The target ends with the end of the sequence unless it was cut;
    an empty one stays empty (nothing to learn).

    Args:
      dataset: examples with string `inputs` and `targets`.
      sequence_length: most tokens of each side; None for no limit.
      output_features: seqio's, for the vocabularies.

    Returns:
      The dataset with int32 `inputs` and `targets`, the texts kept as `inputs_pretokenized` and
      `targets_pretokenized`.

    Raises:
      UserError: `targets` has no room for one token and the end of the sequence.
    """
    inputs_limit, targets_limit = limits(sequence_length)

    def tokenize(example: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        texts = {f"{name}_pretokenized": example[name] for name in ("inputs", "targets")}
        tokens = {
            name: tf.cast(output_features[name].vocabulary.encode_tf(example[name]), tf.int32)
            for name in ("inputs", "targets")
        }
        whole = tf.size(tokens["targets"]) < targets_limit
        end = output_features["targets"].vocabulary.eos_id
        targets = close(tokens["targets"][:targets_limit], whole, end)
        return {**example, **texts, "inputs": tokens["inputs"][:inputs_limit], "targets": targets}

    def tokenize_all(examples: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        vocabulary = output_features["targets"].vocabulary
        inputs, _ = encode_all(
            output_features["inputs"].vocabulary, examples["inputs"], inputs_limit
        )
        targets, counts = encode_all(vocabulary, examples["targets"], targets_limit)
        targets = close_all(targets, counts, counts < targets_limit, vocabulary.eos_id)
        return {**examples, "inputs": inputs, "targets": targets}

    return map_examples(dataset, tokenize, at_once=tokenize_all)


def fill(template: str, example: Mapping[str, tf.Tensor]) -> tf.Tensor:
    """Puts fields of a record into a text.

    Args:
      template: text with field names in braces, for example "a picture of {caption/en}".
      example: a record, or a batch of them; the named fields are strings, scalar or of one element.

    Returns:
      string scalar, or [n] for a batch.

    Raises:
      UserError: a field that the record lacks.
    """
    parts = []
    for literal, name in _parts(template):
        parts.append(tf.constant(literal))
        if name is not None:
            parts.append(value_of(example, name))
    text = tf.strings.join(parts) if parts else tf.constant("")
    return tf.broadcast_to(text, tf.shape(example["id"])) if "id" in example else text


def _usable(template: str, example: Mapping[str, tf.Tensor], blank: bool) -> tf.Tensor:
    """Whether every field in a template is a text that can be learnt from (bool, as `fill`)."""
    usable = tf.constant(True)
    for _, name in _parts(template):
        if name is not None:
            text = value_of(example, name)
            usable &= tf.strings.length(text) <= MAX_TEXT_BYTES
            usable &= tf.strings.unicode_transcode(text, "UTF-8", "UTF-8") == text
            if not blank:
                usable &= ~tf.strings.regex_full_match(text, BLANK)
    return usable


def _parts(template: str) -> list[tuple[str, str | None]]:
    return [(literal, name) for literal, name, _, _ in string.Formatter().parse(template)]


def value_of(example: Mapping[str, tf.Tensor], name: str) -> tf.Tensor:
    """A field without its last axis where that has one element."""
    value = _field(example, name)
    return tf.squeeze(value, -1) if value.shape.rank and value.shape[-1] == 1 else value


def _field(example: Mapping[str, tf.Tensor], name: str) -> tf.Tensor:
    if name not in example:
        raise UserError(f"The records have no field {name!r}; they have {sorted(example)}.")
    return example[name]
