import contextlib
import functools

import numpy as np
import pytest
import seqio
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from simvlm_jax.data.features import task_features
from simvlm_jax.data.mapping import ExampleBatch, NotAtOnceError
from simvlm_jax.data.prefix import split_all, split_text
from simvlm_jax.data.preprocessors import from_record, lm, prefix_lm, source_to_target
from simvlm_jax.data.records import encode_example, write_shards
from simvlm_jax.data.sources import ArrayRecordSource
from simvlm_jax.data.task_examples import TaskExamples
from simvlm_jax.data.testing_records import draw
from simvlm_jax.data.vocabulary import default_vocabulary
from simvlm_jax.errors import UserError

STRING = tf.io.FixedLenFeature([], tf.string)
TEXTS = ["", " ", "red", "red circle", "\u00a0\u3000", "\u200b", b"red \xff", "a\0b", "ä ß 日"]
TEXTS += [" ".join(["green square"] * count) for count in range(1, 16)]
LENGTHS = {"image": 1, "example_seed": 2, "inputs": 6, "targets": 9}


@pytest.fixture
def folder(data_folder, tmp_path):
    png = draw("red", "circle", "left")
    records = [encode_example({"text": text, "other": "a cat", "png": png}) for text in TEXTS]
    write_shards(tmp_path / "texts", "train", records, 1)
    return tmp_path / "texts"


@contextlib.contextmanager
def task(folder, *preprocessors):
    features = {"text": STRING, "other": STRING, "png": STRING}
    seqio.TaskRegistry.add(
        "one_task",
        source=ArrayRecordSource(str(folder), ["train"], features),
        preprocessors=preprocessors,
        output_features=task_features(default_vocabulary(), image=True),
    )
    try:
        yield TaskExamples("one_task", "train", LENGTHS, (6, 6), 3)
    finally:
        seqio.TaskRegistry.remove("one_task")


def made(examples, epoch=4):
    count = len(TEXTS)
    into = {
        name: np.zeros((count, *shape), dtype)
        for name, (shape, dtype) in examples.features().items()
    }
    failures = examples.read(np.arange(count), np.full(count, epoch), into)
    return into, failures


NAMED = functools.partial(from_record, targets="see {text}", image="png")
TASKS = {
    "prefix_lm": [NAMED, prefix_lm],
    "lm": [NAMED, lm],
    "given": [functools.partial(NAMED, inputs="a {other} {text}"), source_to_target],
    "fixed": [functools.partial(NAMED, inputs="a picture of"), source_to_target],
}


@pytest.mark.parametrize("name", TASKS)
def test_all_at_once_is_one_by_one(folder, name, monkeypatch):
    with task(folder, *TASKS[name]) as examples:
        assert examples._at_once(*probe(examples)) is not None
        wanted, failures = made(examples)
    monkeypatch.setattr(TaskExamples, "_at_once", lambda *_: None)
    with task(folder, *TASKS[name]) as examples:
        single, same_failures = made(examples)
    assert failures == same_failures and 5 <= len(failures) < len(TEXTS)
    assert set(wanted) == set(single)
    for feature in wanted:
        np.testing.assert_array_equal(wanted[feature], single[feature], err_msg=feature)


def probe(examples):
    numbers = tf.zeros([2], tf.int64)
    return tf.constant([examples._placeholder] * 2), numbers, numbers


@given(
    counts=st.lists(st.integers(0, 14), min_size=1, max_size=8),
    inputs=st.integers(0, 7),
    targets=st.integers(2, 7),
    seed=st.integers(-(1 << 63), (1 << 63) - 1),
)
@settings(deadline=None, max_examples=60)
def test_split_all_is_split_text_of_each(counts, inputs, targets, seed):
    texts = [np.arange(21, 21 + count, dtype=np.int32) for count in counts]
    cut = [np.pad(text, (0, 14))[: inputs + targets] for text in texts]
    cut = [np.pad(text, (0, inputs + targets - len(text))) for text in cut]
    keys = np.array([[seed, number] for number in range(len(counts))])
    arguments = np.array(cut, np.int32), np.array(counts, np.int32), tf.constant(keys)
    prefixes, rests = split_all(*arguments, inputs, targets, 1)
    for row, text in enumerate(texts):
        prefix, rest = split_text(tf.constant(text), tf.constant(keys[row]), inputs, targets, 1)
        for found, wanted, length in ((prefixes, prefix, inputs), (rests, rest, targets)):
            padded = np.pad(wanted.numpy(), (0, length - len(wanted)))
            np.testing.assert_array_equal(found[row], padded)


def test_a_preprocessor_of_one_s_own_is_taken_one_by_one(folder):
    def upper(dataset):
        return dataset.map(lambda e: {**e, "text": tf.strings.upper(e["text"])})

    with pytest.raises(NotAtOnceError):
        upper(ExampleBatch({}))
    with task(folder, upper, NAMED, prefix_lm) as examples:
        assert examples._at_once(*probe(examples)) is None
        texts, failures = made(examples)
    assert 0 < len(failures) < len(TEXTS) and texts["decoder_loss_weights"].any()


@pytest.mark.parametrize(
    "unrepeatable",
    [
        lambda dataset: dataset.shuffle(10),
        seqio.map_over_dataset(num_seeds=1)(lambda example, seed: example),
        lambda dataset: dataset.map(lambda e: {**e, "r": tf.random.uniform([])}),
    ],
    ids=["shuffle", "num_seeds", "uniform"],
)
def test_what_no_step_tells_is_refused(folder, unrepeatable):
    with pytest.raises(UserError, match="shuffles or draws random numbers"):
        with task(folder, unrepeatable, NAMED, prefix_lm):
            pass


def test_a_task_that_takes_no_empty_record_is_refused(folder):
    def number(dataset):
        return dataset.map(lambda e: {**e, "n": tf.strings.to_number(e["text"]), "text": e["text"]})

    def used(dataset):
        return dataset.map(lambda e: {**e, "text": tf.strings.as_string(e["n"])})

    with pytest.raises(UserError, match="cannot preprocess an empty record"):
        with task(folder, number, used, NAMED, prefix_lm):
            pass


def test_equal_ids_of_two_tasks_draw_apart(folder):
    with task(folder, *TASKS["prefix_lm"]):
        features = dict(seqio.TaskRegistry.get("one_task").output_features)
        source = seqio.TaskRegistry.get("one_task").source
        seqio.TaskRegistry.add(
            "its_twin",
            source=source,
            preprocessors=TASKS["prefix_lm"],
            output_features=features,
        )
        try:
            names = ("one_task", "its_twin", "one_task")
            images = [
                made(TaskExamples(name, "train", LENGTHS, (6, 6), 3))[0]["image"] for name in names
            ]
        finally:
            seqio.TaskRegistry.remove("its_twin")
    np.testing.assert_array_equal(images[0], images[2])
    assert not np.array_equal(images[0], images[1])
