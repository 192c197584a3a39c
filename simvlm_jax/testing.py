"""A tiny network, parameters and batches for it: for our tests and for those of users.

Nothing here reads a file or needs TensorFlow. Everything is a function of its arguments.

Dimension letters: B batch, G groups, H W image height and width, E prefix tokens, T decoder
tokens.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from simvlm_jax.classifier import IMAGES, ClassifierModel
from simvlm_jax.model import PrefixLMModel
from simvlm_jax.models.config import SimVLMConfig
from simvlm_jax.protocol import STREAMS, NetworkModel

EOS = 1
FIRST_WORD = 3


def tiny_config(**changes: Any) -> SimVLMConfig:
    """A network of a few thousand parameters that has every part of the large ones.

    Args:
      **changes: fields of `SimVLMConfig` that should differ. `decoder_only=True` also removes
        the encoder.

    Returns:
      By default two layers of width 16 on each side, over a 2 x 3 grid of image tokens.
    """
    values: dict[str, Any] = dict(
        vocabulary_size=32,
        width=16,
        encoder_layers=0 if changes.get("decoder_only") else 2,
        decoder_layers=2,
        heads=2,
        mlp_width=24,
        image_size=(32, 48),
        patch_size=16,
        conv_layers=(1, 1, 1),
        conv_width=4,
        text_length=16,
    )
    return SimVLMConfig(**{**values, **changes})


def tiny_model(config: SimVLMConfig | None = None, **options: Any) -> PrefixLMModel:
    """A `PrefixLMModel` over `tiny_config()` or another configuration; options are its own."""
    return PrefixLMModel(config or tiny_config(), **options)


def tiny_classifier(
    config: SimVLMConfig | None = None, classes: int = 5, **options: Any
) -> ClassifierModel:
    """A `ClassifierModel` over `tiny_config()` or another configuration; options are its own."""
    return ClassifierModel(config or tiny_config(), classes, **options)


def random_parameters(
    config: SimVLMConfig, seed: int = 0, model: NetworkModel | None = None
) -> dict[str, Any]:
    """Parameters that are random everywhere, also where training starts at zero or one.

    A freshly initialised network hides mistakes: its relative bias tables and the last norm of
    every conv block are zero.

    Args:
      config: the network.
      seed: chooses the numbers.
      model: whose parameters; by default a `PrefixLMModel`'s.

    Returns:
      float32 NumPy arrays in the network's structure.
    """
    model = model or PrefixLMModel(config)
    shapes = jax.eval_shape(lambda: model.get_initial_variables(jax.random.key(0), {}))["params"]
    random = np.random.default_rng(seed)

    def draw(path, leaf):
        values = random.standard_normal(leaf.shape)
        if path[-1].key == "kernel":
            # Per layer, not over the scanned axis; conv kernels sum over their window too.
            inputs = leaf.shape[-2] if leaf.ndim < 4 else np.prod(leaf.shape[:-1])
            values = values / np.sqrt(inputs)
        elif path[-1].key == "scale":
            values = 1 + 0.3 * values
        else:
            values = 0.5 * values
        return values.astype(np.float32)

    return jax.tree_util.tree_map_with_path(draw, shapes)


def tiny_batch(
    config: SimVLMConfig,
    batch: int = 3,
    prefix: int = 4,
    length: int = 5,
    with_image: bool = True,
    seed: int = 0,
) -> dict[str, np.ndarray]:
    """A plain batch of made-up examples, with texts of different lengths.

    Args:
      config: the network that will read it.
      batch: B.
      prefix: E; the first example fills it, the last one has no prefix at all.
      length: T; the first example fills it, every target ends in EOS.
      with_image: False leaves the images out, as in text-only documents.
      seed: chooses images and tokens.

    Returns:
      'image' float32 [B, H, W, 3] in [-1, 1], 'encoder_input_tokens' int32 [B, E],
      'decoder_input_tokens' and 'decoder_target_tokens' int32 [B, T], 'decoder_loss_weights'
      float32 [B, T].
    """
    random = np.random.default_rng(seed)
    words = (FIRST_WORD, config.vocabulary_size)
    image = random.uniform(-1, 1, (batch, *config.image_size, 3)).astype(np.float32)
    inputs = random.integers(*words, (batch, prefix)).astype(np.int32)
    targets = random.integers(*words, (batch, length)).astype(np.int32)
    place = np.arange(batch) / max(batch - 1, 1)
    lengths = np.maximum(np.rint(length - place * (length - 1)), 1).astype(int)
    inputs[np.arange(prefix) >= np.rint(prefix * (1 - place))[:, None]] = 0
    targets[np.arange(batch), lengths - 1] = EOS
    targets[np.arange(length) >= lengths[:, None]] = 0
    shifted = np.pad(targets, ((0, 0), (1, 0)))[:, :-1]
    result = {
        "image": image,
        "encoder_input_tokens": inputs,
        "decoder_input_tokens": shifted * (targets != 0),
        "decoder_target_tokens": targets,
        "decoder_loss_weights": (targets != 0).astype(np.float32),
    }
    if not with_image:
        del result["image"]
    return result


def tiny_groups(
    config: SimVLMConfig, groups: int = 4, pairs: int = 2, documents: int = 1, seed: int = 0
) -> dict[str, np.ndarray]:
    """A training batch of groups with exact counts of pairs and text-only documents.

    Args:
      config: the network that will read it.
      groups: G, the leading size of every leaf.
      pairs: image-text pairs in each group; 0 leaves that stream out.
      documents: documents in each group; 0 leaves that stream out.
      seed: chooses images and tokens.

    Returns:
      Leaves as in `tiny_batch`, [G, pairs, ...], and without an image under the prefix
      'document_', [G, documents, ...].
    """
    make = lambda count, with_image, seed: tiny_batch(  # noqa: E731
        config, count, with_image=with_image, seed=seed
    )
    return _in_groups(make, groups, pairs, documents, seed)


def tiny_labelled(
    model: ClassifierModel,
    batch: int = 4,
    prefix: int = 4,
    length: int = 5,
    with_image: bool = True,
    seed: int = 0,
) -> dict[str, np.ndarray]:
    """A plain batch of made-up examples for a classifier, with texts of different lengths.

    Args:
      model: the classifier that will read it.
      batch: B.
      prefix: E; as in `tiny_batch`.
      length: T; the first example fills it, the last has no text for the decoder at all.
      with_image: False leaves the images out.
      seed: chooses images, tokens and labels.

    Returns:
      'image' and, for a model of two images, 'second_image' uint8 [B, H, W, 3],
      'encoder_input_tokens' int32 [B, E], 'decoder_input_tokens' int32 [B, T], 'labels' int32
      [B, 2] and 'label_scores' float32 [B, 2]: two answers in every other example, else one.
    """
    random = np.random.default_rng(seed + 1)
    result = tiny_batch(model.config, batch, prefix, length, with_image, seed)
    del result["decoder_target_tokens"], result["decoder_loss_weights"]
    result.pop("image", None)
    for name in IMAGES[: model.images] if with_image else ():
        result[name] = random.integers(0, 256, (batch, *model.config.image_size, 3), np.uint8)
    first = random.integers(0, model.classes, batch)
    second = (first + 1 + random.integers(0, model.classes - 1, batch)) % model.classes
    single = np.arange(batch) % 2 == 1
    result["labels"] = np.stack([first, np.where(single, -1, second)], 1).astype(np.int32)
    result["label_scores"] = np.where(single[:, None], [[1.0, 0.0]], [[1.0, 0.3]]).astype(
        np.float32
    )
    return result


def tiny_labelled_groups(
    model: ClassifierModel, groups: int = 4, pairs: int = 2, documents: int = 1, seed: int = 0
) -> dict[str, np.ndarray]:
    """A training batch for a classifier: `tiny_labelled` in groups, as in `tiny_groups`."""
    make = lambda count, with_image, seed: tiny_labelled(  # noqa: E731
        model, count, with_image=with_image, seed=seed
    )
    return _in_groups(make, groups, pairs, documents, seed)


def _in_groups(
    make: Callable[[int, bool, int], dict[str, np.ndarray]],
    groups: int,
    pairs: int,
    documents: int,
    seed: int,
) -> dict[str, np.ndarray]:
    result: dict[str, np.ndarray] = {}
    for i, (prefix, count) in enumerate(zip(STREAMS, (pairs, documents), strict=True)):
        if count:
            for name, leaf in make(groups * count, i == 0, seed + i).items():
                result[prefix + name] = leaf.reshape(groups, count, *leaf.shape[1:])
    return result


def shapes_of(batch: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """The shape of each leaf, as `get_initial_variables` takes them."""
    return {name: tuple(leaf.shape) for name, leaf in batch.items()}
