"""Examples of one seqio task by index: its records through its own preprocessors, in batches.

This stands where seqio would shard, cache, repeat and shuffle. A bad record keeps its place: an
empty record takes it, and its example weighs nothing.
"""

import hashlib
from collections.abc import Mapping

import numpy as np
import seqio
import tensorflow as tf

from simvlm_jax.data.features import (
    FIXED_LENGTHS,
    SimVLMFeatureConverter,
    converted,
    images_of,
    weights_of,
)
from simvlm_jax.data.images import Augmentation, View, choose_views, read_crop
from simvlm_jax.data.ledger import Failure
from simvlm_jax.data.mapping import ExampleBatch, map_examples
from simvlm_jax.data.order import order_key
from simvlm_jax.data.parts import Part, part_of
from simvlm_jax.data.pillow_images import IN_MEMORY
from simvlm_jax.data.plain import check_task
from simvlm_jax.data.seeds import image_seed
from simvlm_jax.data.sources import Records, Unreadable
from simvlm_jax.errors import UserError

Arrays = dict[str, np.ndarray]
Causes = dict[int, str]  # by row
FINGERPRINTED = 8  # records that are read for it
UNREPEATABLE = ("Shuffle", "Random", "StatefulRandom", "StatefulUniform", "TruncatedNormal")  # ops
ENCODED = {"image": "encoded", "second_image": "second_encoded"}  # before they are decoded
NO_TEXT = "it has no text to learn from (blank, not UTF-8, or over a megabyte)"


class TaskExamples:
    """Reads records of a task by index and makes the model's features of them."""

    def __init__(
        self,
        name: str,
        split: str,
        lengths: Mapping[str, int],
        image_size: tuple[int, int],
        seed: int = 0,
        augmentation: Augmentation | None = None,
        training: bool = True,
    ):
        """Opens the task's source.

        Args:
          name: a registered seqio task.
          split: one of its splits.
          lengths: task feature lengths.
          image_size: (height, width) in pixels.
          seed: of prefixes and crops.
          augmentation: of images; by default the mild one.
          training: else examples are as seqio shows them in evaluation: images whole, the same in
            every epoch, and without a text to predict where the split has none.

        Raises:
          UserError: no such task or split, an empty source, one that cannot be read by index,
            lengths that do not fit, or a task that filters or multiplies examples.
        """
        self.name, self._lengths = name, dict(lengths)
        self._seed = order_key(seed, name)  # equal ids of two tasks have nothing in common
        self._padded = [feature for feature in lengths if feature not in FIXED_LENGTHS]
        self._images = images_of(lengths)
        self._image_size = image_size
        self._augmentation, self._training = augmentation or Augmentation(), training
        self._task = check_task(name, lengths)
        self._records: Records | Part = _open(self._task, split)
        self._placeholder = self._task.source.placeholder()
        strings, numbers = tf.TensorSpec([None], tf.string), tf.TensorSpec([None], tf.int64)
        self._process = tf.function(
            self._preprocess,
            input_signature=[strings, numbers, numbers],
            autograph=False,  # that of the preprocessors' own maps stays
            reduce_retracing=True,
        )
        self._check()

    def __len__(self) -> int:
        """Returns the number of records, so of examples in an epoch."""
        return len(self._records)

    def keep_part(self, fraction: float, seed: int) -> None:
        """Keeps a part of the records and forgets the others; see `part_of`.

        Raises:
          UserError: the fraction is not in (0, 1], or leaves no record.
        """
        owner = f"the task {self.name!r}"
        self._records = part_of(self._records, fraction, order_key(seed, self.name), owner)

    def fingerprint(self) -> str:
        """Says in 16 letters what the records are, by their shards' names and some of them."""
        whole = hashlib.sha256()
        for shard, end in zip(self._records.shards, self._records.ends, strict=True):
            whole.update(f"{shard.rsplit('/', 1)[-1]} {end}\0".encode(errors="surrogateescape"))
        spread = np.unique(np.linspace(0, len(self) - 1, FINGERPRINTED, dtype=np.int64))
        for record in self._records.read(spread):
            whole.update(record if isinstance(record, bytes) else record.cause.encode())
        return whole.hexdigest()[:16]

    def features(self) -> dict[str, tuple[tuple[int, ...], np.dtype]]:
        """Returns (shape, dtype) of every array of one example."""
        converter = SimVLMFeatureConverter(image_size=self._image_size)
        shapes = converter.model_feature_shapes(self._lengths)
        return {name: (shape, np.dtype(dtype.name)) for name, (shape, dtype) in shapes.items()}

    def read(
        self, indices: np.ndarray, epochs: np.ndarray, into: Mapping[str, np.ndarray]
    ) -> list[Failure]:
        """Makes examples; safe between threads.

        Args:
          indices: int64 [n], which records.
          epochs: int64 [n], in which epoch each is shown.
          into: arrays [n, ...] by name, filled in place.

        Returns:
          What could not be used; its rows have loss weights (label scores) 0, and black images.
        """
        found = self._records.read(indices)
        whole = self._records.whole_indices(indices)  # ids are those of the whole
        causes = {row: r.cause for row, r in enumerate(found) if isinstance(r, Unreadable)}
        serialized = [self._placeholder if row in causes else r for row, r in enumerate(found)]
        made, more = self._made(serialized, whole, epochs)
        causes = more | causes
        weights = weights_of(made)
        # A class may be told of no text, and what is only evaluated need not have a target.
        if self._training and weights not in self._lengths:
            for row in np.flatnonzero(~made[weights].any(axis=1)):
                causes.setdefault(int(row), NO_TEXT)
        for name, array in made.items():
            if name in into:
                into[name][...] = array
        for number, name in enumerate(self._images):
            views = choose_views(image_seed(made["example_seed"], number), self._augmentation)
            for row, (content, view) in enumerate(zip(made[ENCODED[name]], views, strict=True)):
                if row not in causes and (cause := self._decode(content, view, into[name][row])):
                    causes[row] = cause
        for row in causes:
            into[weights][row] = 0
            for name in self._images:
                into[name][row] = 0
        return [
            Failure(self.name, *self._records.name(int(indices[row])), cause)
            for row, cause in sorted(causes.items())
        ]

    def _decode(self, content: bytes, view: View, pixels: np.ndarray) -> str | None:
        """Writes one image; returns why it cannot be used, where it cannot."""
        try:
            pixels[...] = read_crop(content, view, self._image_size)
        except UserError as error:
            return str(error).replace(IN_MEMORY, "the image").rstrip(".")
        return None

    def _made(
        self, serialized: list[bytes], indices: np.ndarray, epochs: np.ndarray
    ) -> tuple[Arrays, Causes]:
        """Preprocesses all rows at once; where one fails, finds it by halves and empties it."""
        try:
            return self._run(serialized, indices, epochs), {}
        except tf.errors.OpError as error:
            if len(serialized) == 1:
                return self._run([self._placeholder], indices, epochs), {0: _cause(error)}
        middle = len(serialized) // 2
        first, causes = self._made(serialized[:middle], indices[:middle], epochs[:middle])
        last, more = self._made(serialized[middle:], indices[middle:], epochs[middle:])
        joined = {name: np.concatenate([first[name], last[name]]) for name in first}
        return joined, causes | {middle + row: cause for row, cause in more.items()}

    def _run(self, serialized: list[bytes], indices: np.ndarray, epochs: np.ndarray) -> Arrays:
        made = self._process(np.array(serialized, object), indices, epochs)
        return {name: tensor.numpy() for name, tensor in made.items()}

    def _preprocess(
        self, serialized: tf.Tensor, indices: tf.Tensor, epochs: tf.Tensor
    ) -> dict[str, tf.Tensor]:
        """[n] records -> what `converted` gives [n, L], with encoded images and their seeds."""
        made = self._at_once(serialized, indices, epochs)
        if made is None:
            made = self._one_by_one(serialized, indices, epochs)
        rows = {
            name: tf.ensure_shape(made[name], [None, self._lengths[name]]) for name in self._padded
        }
        features = converted(rows)
        for name in self._images:
            features[ENCODED[name]] = made[name][:, 0]
        if self._images:
            features["example_seed"] = made["example_seed"]
        return features

    def _at_once(
        self, serialized: tf.Tensor, indices: tf.Tensor, epochs: tf.Tensor
    ) -> dict[str, tf.Tensor] | None:
        """All examples by preprocessors that know batches, or None where one does not."""
        parsed = self._task.source.parse_batch(serialized, indices)
        if parsed is None:
            return None
        batch = ExampleBatch({**parsed, **self._more(epochs)})
        try:
            made = self._preprocessed(batch).examples
            rows = {name: made[name] for name in self._padded}
            missing = {name: self._lengths[name] - rows[name].shape[1] for name in rows}
        except Exception:  # whatever it is, it is told where examples are taken one by one
            return None
        padded = {name: tf.pad(rows[name], [[0, 0], [0, missing[name]]]) for name in rows}
        return {**made, **padded}

    def _one_by_one(
        self, serialized: tf.Tensor, indices: tf.Tensor, epochs: tf.Tensor
    ) -> dict[str, tf.Tensor]:
        shapes = {name: [self._lengths[name]] for name in self._padded}
        if self._images:
            shapes |= {name: [1] for name in self._images} | {"example_seed": [2]}
        examples = map_examples(
            self._examples(serialized, indices, epochs),
            lambda example: {name: example[name] for name in shapes},
        )
        options = tf.data.Options()
        options.autotune.enabled = False
        batch = examples.padded_batch(tf.size(indices, tf.int64), shapes).with_options(options)
        return batch.get_single_element()

    def _examples(
        self, serialized: tf.Tensor, indices: tf.Tensor, epochs: tf.Tensor
    ) -> tf.data.Dataset:
        def parse(
            data: tf.Tensor, index: tf.Tensor, more: dict[str, tf.Tensor]
        ) -> dict[str, tf.Tensor]:
            return {**self._task.source.parse(data, index), **more}

        records = tf.data.Dataset.from_tensor_slices((serialized, indices, self._more(epochs)))
        return self._preprocessed(map_examples(records, parse))

    def _more(self, epochs: tf.Tensor) -> dict[str, tf.Tensor]:
        """What the stream knows of examples beside their records."""
        if not self._training:
            return {}
        seeds = tf.fill(tf.shape(epochs), tf.constant(self._seed, tf.int64))
        return {"epoch": epochs, "seed": seeds}

    def _preprocessed(self, examples: tf.data.Dataset | ExampleBatch):
        task = self._task
        return task.preprocess_postcache(task.preprocess_precache(examples), self._lengths)

    def _check(self) -> None:
        """Refuses a task whose examples a step would not tell, or that cannot be run at all."""
        zeros = np.zeros(2, np.int64)
        two = [self._placeholder] * 2
        if (
            self._examples(tf.constant(two), tf.constant(zeros), tf.constant(zeros)).cardinality()
            != 2
        ):
            raise UserError(
                f"The task {self.name!r} filters or multiplies examples while training, so a step "
                "would not tell its examples; do that when the data is prepared."
            )
        definition = self._process.get_concrete_function().graph.as_graph_def()
        nodes = [n for part in (definition, *definition.library.function) for n in _nodes(part)]
        if found := sorted({node.op for node in nodes if node.op.startswith(UNREPEATABLE)}):
            raise UserError(
                f"The task {self.name!r} shuffles or draws random numbers ({found[0]}) that no "
                "step tells; draw by simvlm_jax.data.seeds.example_key."
            )
        try:
            self._run(two, zeros, zeros)
        except tf.errors.OpError as error:
            raise UserError(
                f"The task {self.name!r} cannot preprocess an empty record, which takes the place "
                f"of a bad one: {_cause(error)}."
            ) from error


def _nodes(part):
    return part.node if hasattr(part, "node") else part.node_def


def _open(task: seqio.Task, split: str) -> Records:
    if not hasattr(task.source, "random_access"):
        raise UserError(
            f"The task {task.name!r} has a source that cannot be read by index, as training does; "
            "use one of simvlm_jax.data.sources."
        )
    records = task.source.random_access(split)
    if not len(records):
        raise UserError(f"The split {split!r} of task {task.name!r} is empty; prepare it again.")
    return records


def _cause(error: tf.errors.OpError) -> str:
    """What is wrong with a record, of what TensorFlow's parser says of it."""
    message = str(error.message)
    for sign, cause in (
        ("is required but could not be found", "a field is missing"),
        ("Data types don't match", "a field has another type than the source says"),
        ("Could not parse example input", "it is no tf.train.Example"),
        ("Attempted to pad to a smaller size", "a feature is longer than the task's length of it"),
    ):
        if sign in message:
            return cause
    return "it cannot be preprocessed: " + " ".join(message.split())[:200]
