import struct

import google_crc32c
import numpy as np
import pytest
import seqio
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from simvlm_jax.data.records import encode_example
from simvlm_jax.data.sources import TFRecordSource, Unreadable
from simvlm_jax.errors import UserError

FEATURES = {"content": tf.io.FixedLenFeature([], tf.string)}
HEADER, FOOTER = 12, 4


def write(path, records, options=None):
    with tf.io.TFRecordWriter(str(path), options) as writer:
        for record in records:
            writer.write(record)


def examples(count, start=0):
    return [encode_example({"content": bytes([i]) * (i * 7 % 50)}) for i in range(start, count)]


def source(*paths, features=FEATURES):
    return TFRecordSource("letters", {"train": [str(path) for path in paths]}, features)


@settings(deadline=None, max_examples=25)
@given(sizes=st.lists(st.lists(st.integers(0, 3000), max_size=12), min_size=1, max_size=4))
def test_random_access_equals_what_tensorflow_reads(tmp_path_factory, sizes):
    folder = tmp_path_factory.mktemp("shards")
    generator = np.random.default_rng(0)
    for shard, lengths in enumerate(sizes):
        write(folder / f"{shard}.tfrecord", [generator.bytes(length) for length in lengths])
    made = source(*sorted(folder.glob("*.tfrecord")))
    records = made.random_access("train")
    wanted = list(tf.data.TFRecordDataset(made.list_shards("train")).as_numpy_iterator())
    assert len(records) == len(wanted)
    order = generator.permutation(len(wanted))
    places = [records.place(index) for index in order]
    assert records.raw(places) == [wanted[index] for index in order]


def test_records_of_no_bytes(tmp_path):
    write(tmp_path / "a.tfrecord", [b"", b"", b"\n\0"])
    records = source(tmp_path / "a.tfrecord", features={}).random_access("train")
    assert records.read([2, 1, 0]) == [b"\n\0", b"", b""]


def test_the_index_holds_what_the_writer_noted(tmp_path):
    rows = examples(4)
    write(tmp_path / "a.tfrecord", rows)
    source(tmp_path / "a.tfrecord").random_access("train")
    index = (tmp_path / "a.tfrecord.index").read_bytes()
    entries = list(struct.iter_unpack("<QII", index[-16 * len(rows) :]))
    starts = np.cumsum([HEADER] + [HEADER + FOOTER + len(row) for row in rows[:-1]])
    assert entries == [
        (start, len(row), google_crc32c.value(row)) for start, row in zip(starts, rows, strict=True)
    ]


def test_in_a_seqio_task(tmp_path):
    write(tmp_path / "a.tfrecord", examples(6))
    write(tmp_path / "b.tfrecord", examples(9, 6))
    made = source(tmp_path / "a.tfrecord", tmp_path / "b.tfrecord")
    seqio.TaskRegistry.add("tfrecord_task", source=made, preprocessors=[], output_features={})
    try:
        dataset = seqio.get_mixture_or_task("tfrecord_task").get_dataset(
            {}, "train", shuffle=False, shard_info=seqio.ShardInfo(1, 2)
        )
        seen = [(int(e["id"]), e["content"]) for e in dataset.as_numpy_iterator()]
    finally:
        seqio.TaskRegistry.remove("tfrecord_task")
    assert seen == [(i, bytes([i]) * (i * 7 % 50)) for i in range(6, 9)]


def test_damaged_bytes_keep_their_place(tmp_path):
    rows = examples(5)
    path = tmp_path / "a.tfrecord"
    write(path, rows)
    data = bytearray(path.read_bytes())
    data[data.index(rows[3]) + 4] ^= 1
    path.write_bytes(data)
    found = source(path).random_access("train").read(range(5))
    cause = "the bytes of the record have changed since their checksum was made"
    assert found == [*rows[:3], Unreadable(cause), rows[4]]
    with pytest.raises(Exception, match=f"Record 3 of {path} cannot be read"):
        list(source(path).get_dataset("train", shuffle=False))


def frame_start(number):
    return sum(HEADER + FOOTER + len(row) for row in examples(number))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda data: data[:-1], f"ends within the record at byte {frame_start(4)}"),
        (lambda data: data[:-5], f"ends within the record at byte {frame_start(4)}"),
        (lambda data: data[: frame_start(4) + 3], f"within the record at byte {frame_start(4)}"),
        (
            lambda data: data[: frame_start(2)] + b"\xff" + data[frame_start(2) + 1 :],
            f"damaged at byte {frame_start(2)}",
        ),
        (
            lambda data: data[: frame_start(2) + 9] + b"\xff" + data[frame_start(2) + 10 :],
            f"damaged at byte {frame_start(2)}",
        ),
        (lambda data: b"text that is no frame", "is no TFRecord file"),
    ],
)
def test_a_damaged_shard_is_named_and_not_indexed(tmp_path, change, sentence):
    path = tmp_path / "a.tfrecord"
    write(path, examples(5))
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(UserError, match=f"{path.name} .*{sentence}"):
        source(path).random_access("train")
    assert [file.name for file in tmp_path.iterdir()] == ["a.tfrecord"]


def test_a_length_beyond_all_memory_is_not_believed(tmp_path):
    length = struct.pack("<Q", 1 << 60)
    checksum = google_crc32c.value(length)
    masked = ((checksum >> 15 | checksum << 17) + 0xA282EAD8) & 0xFFFFFFFF
    (tmp_path / "a.tfrecord").write_bytes(length + struct.pack("<I", masked) + b"short")
    with pytest.raises(UserError, match="ends within the record at byte 0"):
        source(tmp_path / "a.tfrecord").random_access("train")


@pytest.mark.parametrize(("kind", "word"), [("GZIP", "gunzip"), ("ZLIB", "zlib")])
def test_compressed_shards_are_refused(tmp_path, kind, word):
    write(tmp_path / "a.tfrecord", examples(5), tf.io.TFRecordOptions(compression_type=kind))
    with pytest.raises(UserError, match=f"a.tfrecord .*{word}"):
        source(tmp_path / "a.tfrecord").random_access("train")


def test_records_that_lack_what_the_source_promises(tmp_path):
    whole = encode_example({"content": "a"})
    write(tmp_path / "a.tfrecord", [whole, encode_example({"other": "a"}), b"\xff\xff"])
    found = source(tmp_path / "a.tfrecord").random_access("train").read(range(3))
    assert found == [
        whole,
        Unreadable("the record has no field 'content'"),
        Unreadable("the record is no tf.train.Example"),
    ]


def test_files_without_records(tmp_path):
    write(tmp_path / "a.tfrecord", [])
    made = source(tmp_path / "a.tfrecord")
    assert made.num_input_examples("train") == 0
    assert list(made.get_dataset("train", shuffle=True)) == []
