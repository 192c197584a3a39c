import numpy as np
import pytest
import seqio
import tensorflow as tf

from simvlm_jax.data.features import SimVLMFeatureConverter, check_lengths, task_features
from simvlm_jax.data.pillow_images import load_image
from simvlm_jax.data.testing_records import draw
from simvlm_jax.errors import UserError

TEXT = {"inputs": 4, "targets": 5}
PAIR = {**TEXT, "image": 1, "example_seed": 2}
PNG = draw("red", "circle", "left")


def dataset(*texts, image=None, seed=(0, 0)):
    def examples():
        for number, (inputs, targets) in enumerate(texts):
            example = {"inputs": inputs, "targets": targets, "id": number, "text": "kept out"}
            yield example | ({"image": [image], "example_seed": seed} if image is not None else {})

    one = tf.TensorSpec([None], tf.int32)
    signature = {
        "inputs": one,
        "targets": one,
        "id": tf.TensorSpec([], tf.int64),
        "text": tf.TensorSpec([], tf.string),
    }
    if image is not None:
        signature["image"] = tf.TensorSpec([1], tf.string)
        signature["example_seed"] = tf.TensorSpec([2], tf.int64)
    return tf.data.Dataset.from_generator(examples, output_signature=signature)


def convert(examples, lengths, **options):
    converter = SimVLMFeatureConverter(image_size=(8, 6), **options)
    return list(converter(examples, lengths).as_numpy_iterator())


def test_worked_example_of_the_docstring():
    (example,) = convert(dataset(([21, 22], [23, 24, 1])), {"inputs": 4, "targets": 4})
    wanted = {
        "encoder_input_tokens": [21, 22, 0, 0],
        "decoder_target_tokens": [23, 24, 1, 0],
        "decoder_input_tokens": [0, 23, 24, 1],
        "decoder_loss_weights": [1, 1, 1, 0],
    }
    assert {name: array.tolist() for name, array in example.items()} == wanted


def test_text_features_are_those_of_seqio_s_own_converter():
    texts = [([5, 6, 7, 8], [9, 8, 7, 6, 5]), ([], [3, 1]), ([4], [1]), ([], [])]
    own = convert(dataset(*texts), TEXT)
    other = seqio.EncDecFeatureConverter(pack=False)(dataset(*texts), TEXT).as_numpy_iterator()
    for ours, theirs in zip(own, other, strict=True):
        assert set(ours) == set(theirs)
        for name in ours:
            np.testing.assert_array_equal(ours[name], theirs[name])


def test_pads_are_never_trained_on_and_the_decoder_starts_from_zero():
    for example in convert(dataset(([5], [9, 8, 1]), ([], [])), TEXT):
        weights, targets = example["decoder_loss_weights"], example["decoder_target_tokens"]
        np.testing.assert_array_equal(weights, targets != 0)
        assert example["decoder_input_tokens"][0] == 0 and weights.dtype == np.float32


def test_image_is_decoded_and_other_fields_stay_out():
    (example,) = convert(dataset(([5], [9, 1]), image=PNG), PAIR)
    np.testing.assert_array_equal(example["image"], load_image(PNG, (8, 6)))
    assert set(example) == {
        "image",
        "encoder_input_tokens",
        "decoder_input_tokens",
        "decoder_target_tokens",
        "decoder_loss_weights",
    }


def test_a_seed_changes_the_image():
    (plain,) = convert(dataset(([5], [9, 1]), image=PNG), PAIR)
    (seeded,) = convert(dataset(([5], [9, 1]), image=PNG, seed=(3, 4)), PAIR)
    assert not np.array_equal(plain["image"], seeded["image"])


def test_an_undecodable_image_keeps_its_place_with_weight_zero():
    noted = []
    examples = dataset(([5], [9, 1]), ([6], [7, 1]), image=b"no image")
    converted = convert(examples, PAIR, on_failure=lambda *entry: noted.append(entry))
    assert len(converted) == 2 and sorted(number for number, _ in noted) == [0, 1]
    for example in converted:
        assert not example["image"].any() and not example["decoder_loss_weights"].any()
        assert example["decoder_target_tokens"].any()


def test_one_converter_serves_both_feature_sets():
    converter = SimVLMFeatureConverter(image_size=(8, 6))
    pair = converter(dataset(([5], [9, 1]), image=PNG), PAIR)
    text = converter(dataset(([5], [9, 1])), TEXT)
    assert set(pair.element_spec) - set(text.element_spec) == {"image"}
    shapes = {k: (tuple(s.shape), s.dtype) for k, s in pair.element_spec.items()}
    assert shapes == converter.model_feature_shapes(PAIR)


def test_lengths_can_be_asked_for_alone():
    converter = SimVLMFeatureConverter(image_size=(8, 6))
    assert converter.get_model_feature_lengths(PAIR) == {
        "encoder_input_tokens": 4,
        "decoder_input_tokens": 5,
        "decoder_target_tokens": 5,
        "decoder_loss_weights": 5,
        "image": 8,
    }
    assert "image" not in converter.get_model_feature_lengths(TEXT)


def test_a_side_that_is_too_long_is_an_error():
    with pytest.raises(tf.errors.InvalidArgumentError, match="length"):
        convert(dataset(([1, 2, 3, 4, 5], [9, 1])), TEXT)


def test_what_cannot_be_is_refused():
    with pytest.raises(UserError, match="pack=False"):
        SimVLMFeatureConverter(pack=True)
    bad = [{"inputs": 4}, {**TEXT, "image": 1}, {**TEXT, "more": 1}, {**PAIR, "image": 3}]
    for lengths in bad:
        with pytest.raises(UserError, match="length"):
            check_lengths(lengths)


def test_task_features_pass_seqio_s_rules():
    features = task_features(seqio.ByteVocabulary(), image=True)
    assert features["image"].dtype == tf.string and features["image"].rank == 1
    assert not features["inputs"].add_eos and features["targets"].add_eos
    assert set(features) == set(PAIR)
    assert set(task_features(seqio.ByteVocabulary(), image=False)) == set(PAIR) - {"image"}
