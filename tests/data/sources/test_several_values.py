"""Fields of any number of values, as TFDS has COCO's captions, from the file to the batch."""

import collections
import contextlib
import functools
import json

import numpy as np
import pyarrow as pa
import pytest
import seqio
import tensorflow as tf
from pyarrow import parquet as pq

from simvlm_jax.data import sources
from simvlm_jax.data.features import task_features
from simvlm_jax.data.preprocessors import from_record, pick_one, source_to_target
from simvlm_jax.data.streams import GroupStream
from simvlm_jax.data.task_examples import NO_TEXT
from simvlm_jax.data.vocabulary import default_vocabulary
from tfds_writer import write_tfds

FIELDS = {"captions": tf.io.FixedLenSequenceFeature([], tf.string, allow_missing=True)}
WORDS = ("red", "green", "blue", "yellow", "black")
# The vocabulary of the tests cannot tell numbers apart: an example is known by its shape.
SHAPES = ("circle", "square", "cross", "triangle")
ROWS = [[f"{word} {shape}" for word in WORDS] for shape in SHAPES]
GROUPS = 4


def of_tfds(folder, rows):
    write_tfds(folder, {"captions": "texts"}, [{"captions": row} for row in rows])
    return sources.TFDSSource("own", {"train": "train"}, FIELDS, str(folder))


def of_parquet(folder, rows):
    column = pa.array(rows, pa.list_(pa.string()))
    pq.write_table(pa.table({"captions": column}), folder / "a.parquet")
    return sources.ParquetSource("own", {"train": f"{folder}/a.parquet"}, FIELDS)


def of_json_lines(folder, rows):
    lines = [json.dumps({"captions": row}) for row in rows]
    (folder / "a.jsonl").write_text("\n".join(lines))
    return sources.JSONLinesSource("own", {"train": f"{folder}/a.jsonl"}, FIELDS)


MAKERS = [of_tfds, of_parquet, of_json_lines]


@contextlib.contextmanager
def opened(source):
    """Gives a function that opens the stream of a task that picks one caption."""
    seqio.TaskRegistry.add(
        "several_task",
        source=source,
        preprocessors=[
            functools.partial(pick_one, field="captions"),
            functools.partial(from_record, targets="{captions}", inputs=""),
            source_to_target,
        ],
        output_features=task_features(default_vocabulary(), image=False),
    )
    try:
        yield lambda **options: GroupStream(
            {}, {"several_task": 1}, GROUPS, {}, {"inputs": 2, "targets": 24},
            image_size=(8, 8), **({"seed": 1} | options),
        )  # fmt: skip
    finally:
        seqio.TaskRegistry.remove("several_task")


def take(stream, count, groups=None):
    batches = stream.batches(0, groups)
    found = [next(batches)["document_decoder_target_tokens"][:, 0] for _ in range(count)]
    batches.close()
    return found


def text(tokens):
    return default_vocabulary().decode([int(token) for token in tokens if token > 1])


@pytest.mark.parametrize("maker", MAKERS, ids=lambda maker: maker.__name__)
def test_every_caption_is_shown_about_equally_often_on_any_number_of_hosts(
    maker, tmp_path, data_folder
):
    epochs = 150
    with opened(maker(tmp_path, ROWS)) as stream:
        batches = take(stream(), epochs)  # a batch is an epoch
        halves = [take(stream(), 20, groups) for groups in ([0, 1], [2, 3])]
        others = take(stream(seed=2), 20)
    shown = collections.Counter(text(row) for batch in batches for row in batch)
    assert sum(shown.values()) == epochs * GROUPS
    assert set(shown) == {caption for row in ROWS for caption in row}
    share = epochs / len(WORDS)
    assert all(abs(count - share) < 4 * share**0.5 for count in shown.values())
    for batch in batches:  # of every example one caption
        assert sorted(text(row).split()[1] for row in batch) == sorted(SHAPES)
    for whole, *parts in zip(batches, *halves, strict=False):
        np.testing.assert_array_equal(np.concatenate(parts), whole)
    assert [batch.tolist() for batch in others] != [batch.tolist() for batch in batches[:20]]


@pytest.mark.parametrize("maker", MAKERS, ids=lambda maker: maker.__name__)
def test_a_record_without_a_caption_keeps_its_place(maker, tmp_path, data_folder):
    with opened(maker(tmp_path, [*ROWS[:3], []])) as stream:
        made = stream()
        (batch,) = take(made, 1)
    assert sorted(row.any() for row in batch) == [False, True, True, True]
    ((bad,),) = [made.ledger.named]
    assert (bad.key, bad.cause) == ("3", NO_TEXT)


def test_a_plain_task_picks_the_same_every_time(tmp_path, data_folder):
    with opened(of_parquet(tmp_path, ROWS)):
        task = seqio.get_mixture_or_task("several_task")
        runs = [
            [
                example["targets_pretokenized"]
                for example in task.get_dataset(
                    {"inputs": 2, "targets": 24}, "train", shuffle=False
                ).as_numpy_iterator()
            ]
            for _ in range(2)
        ]
    assert runs[0] == runs[1]
    assert all(caption.decode() in row for caption, row in zip(runs[0], ROWS, strict=True))


def test_the_place_of_a_bad_record_has_one_empty_value(tmp_path):
    made = of_json_lines(tmp_path, ROWS)
    assert made.parse(made.placeholder(), 0)["captions"].numpy().tolist() == [b""]
