import contextlib

import numpy as np
import pytest
import seqio
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from simvlm_jax.data.classification import register_classification
from simvlm_jax.data.features import SimVLMFeatureConverter, check_lengths
from simvlm_jax.data.pillow_images import load_image
from simvlm_jax.data.plain import evaluation_examples, plain_batches
from simvlm_jax.data.preprocessors import MAX_TEXT_BYTES
from simvlm_jax.data.records import encode_example, write_shards
from simvlm_jax.data.seeds import image_seed
from simvlm_jax.data.sources import ArrayRecordSource
from simvlm_jax.data.streams import GroupStream
from simvlm_jax.data.task_examples import TaskExamples
from simvlm_jax.data.testing_records import draw
from simvlm_jax.data.vocabulary import default_vocabulary
from simvlm_jax.errors import UserError

STRING, NUMBER = tf.io.FixedLenFeature([], tf.string), tf.io.FixedLenFeature([], tf.int64)
TEXT = {"inputs": 6, "targets": 5, "labels": 1, "label_scores": 1}
TWO_IMAGES = {**TEXT, "image": 1, "second_image": 1, "example_seed": 2}
RED, BLUE = draw("red", "circle", "left"), draw("blue", "square", "right")
ROWS = [
    ("a cat", "red circle", 0, RED, BLUE),
    ("", "", 2, BLUE, RED),
    ("a", " ".join(["green"] * 40), 1, RED, RED),
    ("b", "no label", -1, RED, BLUE),
    ("c", "bad second", 1, RED, b"no image"),
    ("ü ☃", "x" * (MAX_TEXT_BYTES + 1), 1, BLUE, BLUE),
]


@contextlib.contextmanager
def task(folder, images, rows=ROWS):
    names = ("premise", "hypothesis", "label", "one", "two")
    records = [encode_example(dict(zip(names, row, strict=True))) for row in rows]
    write_shards(folder / "classes", "train", records, 1)
    fields = {n: NUMBER if n == "label" else STRING for n in names}
    source = ArrayRecordSource(str(folder / "classes"), ["train"], fields)
    register_classification(
        "one_class", source, "{premise}", "{hypothesis}", ("one", "two")[:images]
    )
    try:
        yield "one_class"
    finally:
        seqio.TaskRegistry.remove("one_class")


def read(name, lengths, epoch=4):
    count = len(ROWS)
    examples = TaskExamples(name, "train", lengths, (6, 6), 3)
    into = {n: np.ones((count, *s), d) for n, (s, d) in examples.features().items()}
    return into, examples.read(np.arange(count), np.full(count, epoch), into)


def test_worked_example_of_the_converter():
    lengths = {"inputs": 2, "targets": 4, "labels": 3, "label_scores": 3}
    example = {
        "inputs": tf.zeros([0], tf.int32),
        "targets": tf.constant([23, 24]),
        "labels": tf.constant([7, 2, -1]),
        "label_scores": tf.constant([1, 0.3, 0]),
    }
    dataset = tf.data.Dataset.from_tensors(example)
    (found,) = SimVLMFeatureConverter()(dataset, lengths).as_numpy_iterator()
    wanted = {
        "encoder_input_tokens": [0, 0],
        "decoder_input_tokens": [0, 23, 24, 0],
        "labels": [7, 2, -1],
        "label_scores": [1, np.float32(0.3), 0],
    }
    assert {name: array.tolist() for name, array in found.items()} == wanted
    shapes = SimVLMFeatureConverter().model_feature_shapes(lengths)
    assert {name: (a.shape, a.dtype) for name, a in found.items()} == shapes


def test_the_decoder_reads_the_start_and_the_text_without_an_end(data_folder, tmp_path):
    vocabulary = default_vocabulary()
    with task(tmp_path, 0) as name:
        found, failures = read(name, TEXT)
    assert not failures and "image" not in found
    for row, (premise, hypothesis, label, *_) in enumerate(ROWS):
        encoder = vocabulary.encode(premise)[:6]
        decoder = vocabulary.encode(hypothesis)[:4] if row != 5 else []
        pads = [0] * (6 - len(encoder)), [0] * (4 - len(decoder))
        assert found["encoder_input_tokens"][row].tolist() == [*encoder, *pads[0]]
        assert found["decoder_input_tokens"][row].tolist() == [0, *decoder, *pads[1]]
        assert found["labels"][row] == label
        assert found["label_scores"][row] == (label >= 0 and row != 5)  # a text of over a megabyte


@pytest.mark.parametrize("images", [0, 1, 2])
def test_plain_batches_are_what_the_stream_gives_without_augmentation(
    data_folder, tmp_path, images, monkeypatch
):
    lengths = {
        name: length
        for name, length in TWO_IMAGES.items()
        if images > 1 or name != "second_image"
        if images or name not in ("image", "example_seed")
    }
    with task(tmp_path, images) as name:
        ((plain, count),) = plain_batches(name, "train", lengths, (6, 6), len(ROWS))
        monkeypatch.setattr("simvlm_jax.data.task_examples.image_seed", lambda seed, _: 0 * seed)
        stream, _ = read(name, lengths)
        monkeypatch.setattr(TaskExamples, "_at_once", lambda *_: None)
        single, _ = read(name, lengths)
    assert count == len(ROWS) and set(plain) == set(stream) == set(single)
    good = [0, 1, 2, 3, 5]  # of two images both are black where one cannot be used
    for feature in plain:
        np.testing.assert_array_equal(plain[feature][good], stream[feature][good])
        np.testing.assert_array_equal(single[feature], stream[feature])


def test_an_image_that_cannot_be_decoded_takes_the_score(data_folder, tmp_path):
    with task(tmp_path, 2) as name:
        found, failures = read(name, TWO_IMAGES)
        ((plain, _),) = plain_batches(name, "train", TWO_IMAGES, (6, 6), len(ROWS))
    assert [failure.key for failure in failures] == ["4"]
    for batch in (found, plain):
        assert batch["label_scores"][:, 0].tolist() == [1, 1, 1, 0, 0, 0]
        assert not batch["second_image"][4].any()
        assert batch["labels"][:, 0].tolist() == [0, 2, 1, -1, 1, 1]
    np.testing.assert_array_equal(plain["image"][0], load_image(RED, (6, 6)))
    np.testing.assert_array_equal(plain["second_image"][0], load_image(BLUE, (6, 6)))


def test_two_equal_images_are_cropped_apart_in_training(data_folder, tmp_path):
    with task(tmp_path, 2) as name:
        found, _ = read(name, TWO_IMAGES)
        again, _ = read(name, TWO_IMAGES)
        later, _ = read(name, TWO_IMAGES, epoch=5)
    assert not np.array_equal(found["image"][2], found["second_image"][2])
    for feature in found:
        np.testing.assert_array_equal(found[feature], again[feature])
    assert not np.array_equal(found["second_image"], later["second_image"])


WORD = st.integers(-(1 << 63), (1 << 63) - 1)


@given(st.lists(st.tuples(WORD, WORD), min_size=1, max_size=5))
@settings(deadline=None, max_examples=50)
def test_seeds_of_a_second_image_are_others_in_and_out_of_the_graph(seeds):
    seeds = np.array([*seeds, (0, 0)], np.int64)
    for number in (0, 1):
        found = image_seed(seeds, number)
        np.testing.assert_array_equal(found, image_seed(tf.constant(seeds), number).numpy())
        changed = (found != seeds).any(axis=1)
        np.testing.assert_array_equal(changed, seeds.any(axis=1) if number else False)


def test_classes_stand_on_either_side_of_a_stream_s_groups(data_folder, tmp_path):
    lengths = {n: length for n, length in TWO_IMAGES.items() if n != "second_image"}
    with task(tmp_path, 1) as name:
        pairs = GroupStream({name: 2}, {}, 3, lengths, {}, (6, 6), 0)
        batches = pairs.batches()
        batch = next(batches)
        assert batch["labels"].shape == (3, 2, 1) and batch["image"].shape == (3, 2, 6, 6, 3)
        assert pairs.input_shapes == {n: array.shape for n, array in batch.items()}
        filled = np.count_nonzero(batch["encoder_input_tokens"])
        filled += np.count_nonzero(batch["decoder_input_tokens"]) + 6  # starts of sequences
        assert pairs.report(1)["pad_share"] == pytest.approx(1 - filled / (6 * 11))
        batches.close()
    with task(tmp_path, 0) as name:
        texts = GroupStream(
            {"openmoji_captions": 1},
            {name: 2},
            2,
            {"image": 1, "example_seed": 2, "inputs": 8, "targets": 8},
            TEXT,
            (6, 6),
            0,
        )
        batches = texts.batches()
        batch = next(batches)
        assert batch["document_label_scores"].shape == (2, 2, 1)
        assert batch["document_labels"].dtype == np.int32
        assert batch["decoder_target_tokens"].shape == (2, 1, 8)
        batches.close()


def test_evaluation_keeps_labels_and_texts(data_folder, tmp_path):
    with task(tmp_path, 2, ROWS[:4]) as name:
        examples = evaluation_examples(name, "train")
    assert [e["labels"] for e in examples] == [[0], [2], [1], [-1]]
    assert [e["label_scores"] for e in examples] == [[1.0], [1.0], [1.0], [0.0]]
    assert examples[0]["hypothesis"] == "red circle" == examples[0]["targets_pretokenized"]
    assert "one" not in examples[0] and "image" not in examples[0]


def test_lengths_must_fit(data_folder, tmp_path):
    bad = [
        {k: v for k, v in TEXT.items() if k != "labels"},
        {**TEXT, "second_image": 1},
        {"inputs": 4, "targets": 4, "image": 1, "example_seed": 2, "second_image": 1},
        {**TEXT, "label_scores": 2},
    ]
    for lengths in bad:
        with pytest.raises(UserError, match="lengths"):
            check_lengths(lengths)
    with task(tmp_path, 0) as name:
        for lengths in [{**TEXT, "labels": 3, "label_scores": 3}, TWO_IMAGES]:
            with pytest.raises(UserError, match="length"):
                TaskExamples(name, "train", lengths, (6, 6), 3)
        with pytest.raises(UserError, match="too small"):
            TaskExamples(name, "train", {**TEXT, "targets": 1}, (6, 6), 3)
