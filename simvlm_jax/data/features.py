"""The seqio feature converter: task features to the arrays that the model takes."""

from collections.abc import Mapping

import seqio
import tensorflow as tf
from absl import logging

from simvlm_jax.data.images import Augmentation, OnFailure, read_image
from simvlm_jax.data.mapping import map_examples
from simvlm_jax.data.vocabulary import PAD_ID
from simvlm_jax.errors import UserError

Spec = seqio.FeatureConverter.FeatureSpec
BOS_ID = PAD_ID  # T5's convention: the decoder starts from the pad token
TEXT_FEATURES = {"inputs": Spec(tf.int32), "targets": Spec(tf.int32)}
IMAGE_FEATURES = {"image": Spec(tf.string), "example_seed": Spec(tf.int64)}
FIXED_LENGTHS = {"image": 1, "example_seed": 2}
TOKEN_FEATURES = {
    "encoder_input_tokens": ("inputs", tf.int32),
    "decoder_input_tokens": ("targets", tf.int32),
    "decoder_target_tokens": ("targets", tf.int32),
    "decoder_loss_weights": ("targets", tf.float32),
}


def task_features(vocabulary: seqio.Vocabulary, image: bool) -> dict[str, seqio.Feature]:
    """Returns the output features of a task.

    Args:
      vocabulary: of both texts.
      image: whether the task has an image; its feature is the encoded bytes, so that shuffling
        and caching hold kilobytes.

    Returns:
      seqio features: `inputs` and `targets` (int32 tokens), `example_seed` (int64 [2]) and, with an
      image, `image` (string [1]; rank 0 would fail in seqio's trimming).
    """
    features = {
        "inputs": seqio.Feature(vocabulary, add_eos=False),
        "targets": seqio.Feature(vocabulary, add_eos=True),
        "example_seed": seqio.ContinuousFeature(dtype=tf.int64, rank=1),
    }
    if image:
        features["image"] = seqio.ContinuousFeature(dtype=tf.string, rank=1)
    return features


class SimVLMFeatureConverter(seqio.FeatureConverter):
    """Decodes the image, pads the tokens, shifts the targets and weighs the loss.

    With or without an image: the features are those that `task_feature_lengths` names, for example
    {"image": 1, "example_seed": 2, "inputs": 4, "targets": 4} or {"inputs": 4, "targets": 4}.
    Worked example:

        inputs [21 22]                 encoder_input_tokens   21 22  0  0
        targets [23 24  1]             decoder_target_tokens  23 24  1  0
                                       decoder_input_tokens    0 23 24  1
                                       decoder_loss_weights    1  1  1  0

    The model features are those four, int32 [Lin], int32 [Lt], int32 [Lt] and float32 [Lt], and
    `image`, uint8 [H, W, 3]. An image that cannot be decoded becomes zeros, and its
    loss weights too: the example keeps its place and teaches nothing.
    """

    TASK_FEATURES = {**IMAGE_FEATURES, **TEXT_FEATURES}
    MODEL_FEATURES = {
        "image": Spec(tf.uint8, rank=3),
        **{name: Spec(dtype) for name, (_, dtype) in TOKEN_FEATURES.items()},
    }
    PACKING_FEATURE_DTYPES = None

    def __init__(
        self,
        pack: bool = False,
        use_custom_packing_ops: bool = False,
        image_size: tuple[int, int] = (224, 224),
        augmentation: Augmentation | None = None,
        on_failure: OnFailure | None = None,
        apply_length_check: bool = True,
    ):
        """Makes a converter; T5X passes the first two arguments.

        Args:
          pack: must be false: an image cannot be packed.
          use_custom_packing_ops: of no effect.
          image_size: (height, width) in pixels.
          augmentation: for examples whose `example_seed` is not [0, 0]; by default the mild one.
          on_failure: called with (id, cause) for an image that cannot be decoded; by default a
            warning is logged.
          apply_length_check: let seqio check the lengths before and after.

        Raises:
          UserError: packing was asked for.
        """
        if pack:
            raise UserError("SimVLM's examples hold images and cannot be packed; set pack=False.")
        super().__init__(
            pack=False,
            use_custom_packing_ops=use_custom_packing_ops,
            apply_length_check=apply_length_check,
            bos_id=BOS_ID,
        )
        self._image_size = (int(image_size[0]), int(image_size[1]))
        self._augmentation = augmentation or Augmentation()
        self._on_failure = on_failure or _log_failure

    def __call__(
        self, ds: tf.data.Dataset, task_feature_lengths: Mapping[str, int]
    ) -> tf.data.Dataset:
        """Converts a task's data set, with all of seqio's checks.

        Args:
          ds: unbatched examples with task features.
          task_feature_lengths: the most tokens of each text feature; 1 for `image`, 2 for
            `example_seed`.

        Returns:
          A dataset of model features.

        Raises:
          UserError: the lengths name no possible set of features.
        """
        model_lengths = self.get_model_feature_lengths(task_feature_lengths)
        # seqio's checks compare with these; its own converters have but one set of features.
        every = {**IMAGE_FEATURES, **TEXT_FEATURES}
        self.TASK_FEATURES = {name: every[name] for name in task_feature_lengths}
        self.MODEL_FEATURES = {name: type(self).MODEL_FEATURES[name] for name in model_lengths}
        return super().__call__(ds, task_feature_lengths)

    def get_model_feature_lengths(self, task_feature_lengths: Mapping[str, int]) -> dict[str, int]:
        """Returns the first dimension of every model feature (the height, for the image)."""
        check_lengths(task_feature_lengths)
        lengths = {
            name: task_feature_lengths[source] for name, (source, _) in TOKEN_FEATURES.items()
        }
        if "image" in task_feature_lengths:
            lengths["image"] = self._image_size[0]
        return lengths

    def model_feature_shapes(
        self, task_feature_lengths: Mapping[str, int]
    ) -> dict[str, tuple[tuple[int, ...], tf.DType]]:
        """Returns (shape, dtype) of every model feature of one example."""
        lengths = self.get_model_feature_lengths(task_feature_lengths)
        dtypes = {name: spec.dtype for name, spec in type(self).MODEL_FEATURES.items()}
        shapes = {name: (length,) for name, length in lengths.items()}
        if "image" in shapes:
            shapes["image"] = (*self._image_size, 3)
        return {name: (shape, dtypes[name]) for name, shape in shapes.items()}

    def _convert_features(
        self, ds: tf.data.Dataset, task_feature_lengths: Mapping[str, int]
    ) -> tf.data.Dataset:
        inputs, targets = task_feature_lengths["inputs"], task_feature_lengths["targets"]
        with_image = "image" in task_feature_lengths

        def convert(example: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
            features = token_features(
                _pad(example["inputs"], inputs), _pad(example["targets"], targets)
            )
            if not with_image:
                return features
            image, decoded = read_image(
                example["image"][0],
                example["example_seed"],
                self._image_size,
                self._augmentation,
                example.get("id", tf.constant(-1, tf.int64)),
                self._on_failure,
            )
            weights = features["decoder_loss_weights"] * decoded
            return {**features, "image": image, "decoder_loss_weights": weights}

        return map_examples(ds, convert)


def check_lengths(task_feature_lengths: Mapping[str, int]) -> None:
    """Checks that lengths name a possible set of features.

    Raises:
      UserError: a feature is missing or unknown, or `image` or `example_seed` has another length
        than its only one.
    """
    names, every = set(task_feature_lengths), {**IMAGE_FEATURES, **TEXT_FEATURES}
    needed = set(every if "image" in names else TEXT_FEATURES)
    if not needed <= names <= set(every):
        raise UserError(
            f"The feature lengths {dict(task_feature_lengths)} must name {sorted(needed)}"
            " and nothing else."
        )
    for name, length in FIXED_LENGTHS.items():
        if task_feature_lengths.get(name, length) != length:
            raise UserError(
                f"The length of feature {name!r} is always {length}, not "
                f"{task_feature_lengths[name]}."
            )


def token_features(inputs: tf.Tensor, targets: tf.Tensor) -> dict[str, tf.Tensor]:
    """Shifts padded targets and weighs them; see the worked example of the converter.

    Args:
      inputs: int32 [..., Lin].
      targets: int32 [..., Lt].

    Returns:
      The four arrays that the model takes, by name.
    """
    starts = tf.fill(tf.concat([tf.shape(targets)[:-1], [1]], axis=0), BOS_ID)
    return {
        "encoder_input_tokens": inputs,
        "decoder_input_tokens": tf.concat([starts, targets[..., :-1]], axis=-1),
        "decoder_target_tokens": targets,
        "decoder_loss_weights": tf.cast(targets != PAD_ID, tf.float32),
    }


def _pad(tokens: tf.Tensor, length: int) -> tf.Tensor:
    padded = tf.pad(tokens, [[0, length - tf.size(tokens)]], constant_values=PAD_ID)
    return tf.ensure_shape(padded, [length])


def _log_failure(example_id: int, cause: str) -> None:
    logging.warning("Image of example %d: %s It gets loss weight 0.", example_id, cause)
