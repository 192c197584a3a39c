"""Plain batches for evaluation: every example of a split once, in file order."""

import re
import textwrap
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import seqio
import tensorflow as tf

from simvlm_jax.data.features import IMAGES, LABEL_FEATURES, SimVLMFeatureConverter
from simvlm_jax.errors import UserError

Batch = dict[str, np.ndarray]
OUR_SENTENCE = re.compile(r"\bUserError: (.+)")
# What TensorFlow says of its graph before it says what is wrong.
GRAPH_PREFIX = re.compile(r"^(\{\{.*?\}\} )?(Error in .*? with iterator: \S+: )?")
LONGEST_CAUSE = 300  # TensorFlow repeats the record that it cannot parse


def plain_batches(
    task_name: str,
    split: str,
    lengths: Mapping[str, int],
    image_size: tuple[int, int],
    batch_size: int,
) -> Iterator[tuple[Batch, int]]:
    """Yields each example of a split once, in file order and without augmentation.

    Args:
      task_name: a registered seqio task.
      split: one of its splits.
      lengths: task feature lengths.
      image_size: (height, width) in pixels.
      batch_size: leading size of every batch, the last one included.

    Yields:
      (arrays [batch_size, ...] named as the model's features, number of real examples). The last
      batch is filled up with zeros, so with loss weight 0.

    Raises:
      UserError: an unknown task or split, lengths that do not fit the task, or a record that
        cannot be read or parsed.
    """
    check_task(task_name, lengths)
    dataset = seqio.get_dataset(
        task_name,
        task_feature_lengths=lengths,
        feature_converter=SimVLMFeatureConverter(image_size=image_size),
        dataset_split=split,
        shuffle=False,
        num_epochs=1,
        verbose=False,
    )
    for batch in _read(dataset.batch(batch_size), task_name, split):
        count = len(batch["encoder_input_tokens"])
        missing = batch_size - count
        yield {name: _fill_up(array, missing) for name, array in batch.items()}, count


def evaluation_examples(
    task_name: str, split: str, most: int | None = None
) -> list[dict[str, Any]]:
    """Returns the fields of each example of a split, in the order of `plain_batches`.

    Args:
      task_name: a registered seqio task.
      split: one of its splits.
      most: read the first of them only.

    Returns:
      For each example its id and its record's fields, official ids among them (for example
      "caption/en", "question_id"), a list where the record has any number of texts ("references",
      "answers"), and `targets_pretokenized` (`inputs_pretokenized`); of a classification task
      also `labels` and `label_scores`, lists. Bytes are decoded as UTF-8. No image, no tokens.

    Raises:
      UserError: an unknown task or split, a record that cannot be read or parsed, or a text that
        is not UTF-8.
    """
    dataset = get_task(task_name).get_dataset(None, split, shuffle=False, num_epochs=1)
    names = [name for name, spec in dataset.element_spec.items() if _is_kept(name, spec)]
    dataset = dataset.map(lambda example: {name: example[name] for name in names})
    dataset = dataset.take(-1 if most is None else most)
    try:
        return [
            {name: _plain_value(value) for name, value in example.items()}
            for example in _read(dataset, task_name, split)
        ]
    except UnicodeDecodeError as error:
        raise UserError(
            f"The split {split!r} of the task {task_name!r} has a text that is not UTF-8 "
            f"({error.reason} at byte {error.start}); prepare the data again."
        ) from error


def get_task(name: str) -> seqio.Task:
    """Returns a registered task.

    Raises:
      UserError: there is none of this name; the sentence lists those there are.
    """
    names = sorted(seqio.TaskRegistry.names())
    if name not in names:
        raise UserError(
            f"There is no task {name!r} among those registered ({', '.join(names) or 'none'}); "
            "use one of them, or import the module that registers it."
        )
    return seqio.TaskRegistry.get(name)


def check_task(name: str, lengths: Mapping[str, int]) -> seqio.Task:
    """Returns a registered task whose features are those that `lengths` names.

    Raises:
      UserError: there is no such task, or a feature has no length, or a length no feature.
    """
    task = get_task(name)
    features, given = set(task.output_features), set(lengths)
    optional = set() if "image" in features else {"example_seed"}
    if not features - optional <= given <= features:
        raise UserError(
            f"The task {name!r} has the features {sorted(features)}; give a length for each of "
            f"them, not for {sorted(given)}."
        )
    for feature in LABEL_FEATURES.keys() & features:
        count = task.output_features[feature].count
        if lengths[feature] != count:
            raise UserError(
                f"The length of {feature!r} of the task {name!r} is always {count}, not "
                f"{lengths[feature]}."
            )
    return task


def _is_kept(name: str, spec: tf.TensorSpec) -> bool:
    if spec.shape.rank == 0:
        return True
    texts = spec.dtype == tf.string and name not in IMAGES
    return spec.shape.rank == 1 and (texts or name in LABEL_FEATURES)


def _plain_value(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return [_plain_value(item) for item in value.tolist()]
    if isinstance(value, bytes):
        return value.decode()
    return value.item() if isinstance(value, np.generic) else value


def _fill_up(array: np.ndarray, missing: int) -> np.ndarray:
    return np.pad(array, [(0, missing)] + [(0, 0)] * (array.ndim - 1))


def _read(dataset: tf.data.Dataset, task_name: str, split: str) -> Iterator[Any]:
    """Yields what a dataset holds, and says in one sentence why it cannot be read."""
    try:
        yield from dataset.as_numpy_iterator()
    except tf.errors.OpError as error:
        message, cause = error.message, error
    # So ends a message that holds a record's bytes.
    except UnicodeDecodeError as error:
        message, cause = error.object.decode(errors="replace"), error
    else:
        return
    if ours := OUR_SENTENCE.search(message):
        raise UserError(ours[1]) from cause
    first_line = GRAPH_PREFIX.sub("", message.strip()).partition("\n")[0]
    first_line = "".join(letter if letter.isprintable() else "\ufffd" for letter in first_line)
    raise UserError(
        f"The split {split!r} of the task {task_name!r} cannot be read: "
        f"{textwrap.shorten(first_line, LONGEST_CAUSE)}; prepare the data again."
    ) from cause
