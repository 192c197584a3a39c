"""The seqio feature converter: task features to the arrays that the model takes."""

import dataclasses
from collections.abc import Iterable, Mapping

import seqio
import tensorflow as tf
from absl import logging

from simvlm_jax.data.images import Augmentation, OnFailure, read_image
from simvlm_jax.data.mapping import map_examples
from simvlm_jax.data.seeds import image_seed
from simvlm_jax.data.vocabulary import PAD_ID
from simvlm_jax.errors import UserError

Spec = seqio.FeatureConverter.FeatureSpec
BOS_ID = PAD_ID  # T5's convention: the decoder starts from the pad token
TEXT_FEATURES = {"inputs": Spec(tf.int32), "targets": Spec(tf.int32)}
IMAGE_FEATURES = {"image": Spec(tf.string), "example_seed": Spec(tf.int64)}
LABEL_FEATURES = {"labels": Spec(tf.int32), "label_scores": Spec(tf.float32)}
SECOND_IMAGE = {"second_image": Spec(tf.string)}
EVERY_FEATURE = {**TEXT_FEATURES, **IMAGE_FEATURES, **LABEL_FEATURES, **SECOND_IMAGE}
IMAGES = ("image", "second_image")
FIXED_LENGTHS = {"image": 1, "second_image": 1, "example_seed": 2}
TOKEN_FEATURES = {
    "encoder_input_tokens": ("inputs", tf.int32),
    "decoder_input_tokens": ("targets", tf.int32),
    "decoder_target_tokens": ("targets", tf.int32),
    "decoder_loss_weights": ("targets", tf.float32),
}
CLASSIFICATION_FEATURES = {
    "encoder_input_tokens": ("inputs", tf.int32),
    "decoder_input_tokens": ("targets", tf.int32),
    "labels": ("labels", tf.int32),
    "label_scores": ("label_scores", tf.float32),
}


@dataclasses.dataclass(frozen=True)
class LabelFeature(seqio.ContinuousFeature):
    """A task's `labels` or `label_scores`: always `count` of them."""

    count: int = 1


def task_features(
    vocabulary: seqio.Vocabulary, image: bool, labels: int = 0, second_image: bool = False
) -> dict[str, seqio.Feature]:
    """Returns the output features of a task.

    Args:
      vocabulary: of both texts.
      image: whether the task has an image; its feature is the encoded bytes, so that shuffling
        and caching hold kilobytes.
      labels: how many labels each example of a classification task has room for; 0 for a task
        that generates text.
      second_image: whether a classification task has two images.

    Returns:
      seqio features: `inputs` and `targets` (int32 tokens), `example_seed` (int64 [2]) and, with an
      image, `image` (string [1]; rank 0 would fail in seqio's trimming). With labels, `targets`
      has no end of sequence, and there are `labels` (int32 [labels]: class ids, -1 where there is
      none) and `label_scores` (float32 [labels]: the target score of each, 0 where there is none).
    """
    features = {
        "inputs": seqio.Feature(vocabulary, add_eos=False),
        "targets": seqio.Feature(vocabulary, add_eos=not labels),
        "example_seed": seqio.ContinuousFeature(dtype=tf.int64, rank=1),
    }
    for name in IMAGES[: image + second_image]:
        features[name] = seqio.ContinuousFeature(dtype=tf.string, rank=1)
    if labels:
        features["labels"] = LabelFeature(dtype=tf.int32, rank=1, count=labels)
        features["label_scores"] = LabelFeature(dtype=tf.float32, rank=1, count=labels)
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

    A classification task, whose lengths name `labels` and `label_scores`, has no text to predict:
    the decoder reads all of `targets`, and the model classifies what its last token has become
    (paper, section 4.2.1). Worked example, {"inputs": 2, "targets": 4, "labels": 3,
    "label_scores": 3}:

        inputs []                      encoder_input_tokens    0  0
        targets [23 24]                decoder_input_tokens    0 23 24  0   (last token: place 2)
        labels [7 2 -1]                labels                  7  2 -1
        label_scores [1 .3 0]          label_scores            1 .3  0

    So `targets` has room for one token less than its length, which `classify` sees to. There
    may be a `second_image` (NLVR2); where one of the two cannot be decoded, it is zeros, and the
    `label_scores` are.
    """

    TASK_FEATURES = EVERY_FEATURE
    MODEL_FEATURES = {
        **{name: Spec(tf.uint8, rank=3) for name in IMAGES},
        **{name: Spec(dtype) for name, (_, dtype) in CLASSIFICATION_FEATURES.items()},
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
        self.TASK_FEATURES = {name: EVERY_FEATURE[name] for name in task_feature_lengths}
        self.MODEL_FEATURES = {name: type(self).MODEL_FEATURES[name] for name in model_lengths}
        return super().__call__(ds, task_feature_lengths)

    def get_model_feature_lengths(self, task_feature_lengths: Mapping[str, int]) -> dict[str, int]:
        """Returns the first dimension of every model feature (the height, for the image)."""
        check_lengths(task_feature_lengths)
        lengths = {
            name: task_feature_lengths[source]
            for name, (source, _) in model_features(task_feature_lengths).items()
        }
        return lengths | {name: self._image_size[0] for name in images_of(task_feature_lengths)}

    def model_feature_shapes(
        self, task_feature_lengths: Mapping[str, int]
    ) -> dict[str, tuple[tuple[int, ...], tf.DType]]:
        """Returns (shape, dtype) of every model feature of one example."""
        lengths = self.get_model_feature_lengths(task_feature_lengths)
        dtypes = {name: spec.dtype for name, spec in type(self).MODEL_FEATURES.items()}
        shapes = {name: (length,) for name, length in lengths.items()}
        shapes |= {name: (*self._image_size, 3) for name in images_of(task_feature_lengths)}
        return {name: (shape, dtypes[name]) for name, shape in shapes.items()}

    def _convert_features(
        self, ds: tf.data.Dataset, task_feature_lengths: Mapping[str, int]
    ) -> tf.data.Dataset:
        images = images_of(task_feature_lengths)
        lengths = {
            name: length
            for name, length in task_feature_lengths.items()
            if name not in FIXED_LENGTHS
        }

        def convert(example: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
            padded = {name: _pad(example[name], length) for name, length in lengths.items()}
            features = converted(padded)
            for number, name in enumerate(images):
                features[name], decoded = read_image(
                    example[name][0],
                    image_seed(example["example_seed"], number),
                    self._image_size,
                    self._augmentation,
                    example.get("id", tf.constant(-1, tf.int64)),
                    self._on_failure,
                )
                features[weights_of(features)] *= decoded
            return features

        return map_examples(ds, convert)


def images_of(names: Iterable[str]) -> list[str]:
    """Which of a set of features are images, the first one first."""
    return [name for name in IMAGES if name in set(names)]


def model_features(task_feature_lengths: Mapping[str, int]) -> dict[str, tuple[str, tf.DType]]:
    """Returns, by model feature, the task feature it is made of and its dtype; no images."""
    return CLASSIFICATION_FEATURES if "labels" in task_feature_lengths else TOKEN_FEATURES


def weights_of(names: Iterable[str]) -> str:
    """Returns the model feature whose zeros say that an example teaches nothing."""
    return "label_scores" if "label_scores" in names else "decoder_loss_weights"


def check_lengths(task_feature_lengths: Mapping[str, int]) -> None:
    """Checks that lengths name a possible set of features.

    Raises:
      UserError: a feature is missing or unknown, or `image` or `example_seed` has another length
        than its only one.
    """
    names, needed = set(task_feature_lengths), set(TEXT_FEATURES)
    if images_of(names):
        needed |= set(IMAGE_FEATURES)
    if names & {*LABEL_FEATURES, *SECOND_IMAGE}:  # only a classification has two images
        needed |= set(LABEL_FEATURES)
    allowed = needed | ({*SECOND_IMAGE, "example_seed"} & names)
    if not needed <= names <= allowed:
        raise UserError(
            f"The feature lengths {dict(task_feature_lengths)} must name {sorted(needed)}"
            " and nothing else."
        )
    if task_feature_lengths.get("labels") != task_feature_lengths.get("label_scores"):
        raise UserError(
            f"The feature lengths {dict(task_feature_lengths)} must be the same for labels and "
            "label_scores."
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


def converted(features: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    """Makes the model's arrays, all but images, of padded task features.

    Args:
      features: int32 `inputs` [..., Lin] and `targets` [..., Lt]; with labels, int32 `labels`
        [..., K] and float32 `label_scores` [..., K].

    Returns:
      What `token_features` returns, or for a classification task the four of
      CLASSIFICATION_FEATURES.
    """
    tokens = token_features(features["inputs"], features["targets"])
    if "labels" not in features:
        return tokens
    read = {name: tokens[name] for name in ("encoder_input_tokens", "decoder_input_tokens")}
    return {**read, **{name: features[name] for name in LABEL_FEATURES}}


def _pad(tokens: tf.Tensor, length: int) -> tf.Tensor:
    padded = tf.pad(tokens, [[0, length - tf.size(tokens)]], constant_values=PAD_ID)
    return tf.ensure_shape(padded, [length])


def _log_failure(example_id: int, cause: str) -> None:
    logging.warning("Image of example %d: %s It gets loss weight 0.", example_id, cause)
