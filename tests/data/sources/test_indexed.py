import copy
import functools
import gc
import multiprocessing
import os
import pickle
import struct
import threading

import google_crc32c
import numpy as np
import psutil
import pytest
import seqio
import tensorflow as tf
import webdataset

from simvlm_jax.data.features import task_features
from simvlm_jax.data.preprocessors import from_record, source_to_target
from simvlm_jax.data.records import encode_example
from simvlm_jax.data.sources import TFRecordSource, Unreadable, WebDatasetSource, indexed
from simvlm_jax.data.streams import GroupStream
from simvlm_jax.data.testing_records import draw
from simvlm_jax.data.vocabulary import default_vocabulary
from simvlm_jax.errors import UserError

STRING = tf.io.FixedLenFeature([], tf.string)
FIELDS = {"image/encoded": STRING, "caption": STRING}
COLOURS = ("red", "green", "blue", "yellow", "black")
SHARDS, EACH = 3, 5
COUNT = SHARDS * EACH


def caption(number):
    return f"{COLOURS[number % 5]} circle: {'left' if number % 2 else 'right'}" + " " * number


def picture(number):
    return draw(COLOURS[number % 5], "circle", "left" if number % 2 else "right")


def write_tfrecord(path, numbers):
    with tf.io.TFRecordWriter(str(path)) as writer:
        for n in numbers:
            fields = {"image/encoded": picture(n), "caption": caption(n)}
            writer.write(encode_example(fields))


def write_tar(path, numbers):
    with webdataset.TarWriter(str(path)) as writer:
        for n in numbers:
            writer.write({"__key__": f"{n:06}", "png": picture(n), "txt": caption(n)})


FORMATS = {
    "tfrecord": (write_tfrecord, functools.partial(TFRecordSource, features=FIELDS)),
    "tar": (write_tar, WebDatasetSource),
}


@pytest.fixture(params=FORMATS)
def made(request, tmp_path):
    """(source, folder) of one format."""
    write, make = FORMATS[request.param]
    for shard in range(SHARDS):
        path = tmp_path / f"{shard}.{request.param}"
        write(path, range(shard * EACH, (shard + 1) * EACH))
    return make("photos", {"train": f"{tmp_path}/?.{request.param}"}), tmp_path


def causes(records):
    found = records.read(range(len(records)))
    return {i: record.cause for i, record in enumerate(found) if isinstance(record, Unreadable)}


def test_indexes_are_made_once(made):
    source, folder = made
    source.random_access("train")
    before = {path: path.stat().st_mtime_ns for path in folder.glob("*.index")}
    assert len(before) == SHARDS
    assert source.num_input_examples("train") == COUNT
    assert {path: path.stat().st_mtime_ns for path in folder.glob("*.index")} == before


def test_reading_by_shard_is_reading_by_index(made):
    records = made[0].random_access("train")
    assert records.read_shard(1, [4, 0]) == records.read([EACH + 4, EACH])
    with pytest.raises(IndexError, match=f"record {COUNT} of {COUNT}"):
        records.read([0, COUNT])
    assert records.read([]) == []


def test_copies_of_the_source_work(made):
    for twin in (copy.deepcopy(made[0]), pickle.loads(pickle.dumps(made[0]))):
        assert twin.num_input_examples("train") == COUNT
    with pytest.raises(UserError, match="no split 'test'; it has train"):
        made[0].random_access("test")


def test_troubles_after_the_opening_have_causes(made):
    source, folder = made
    records = source.random_access("train")
    paths = [folder / os.path.basename(shard) for shard in records.shards]
    places = [data.index(b"\x89PNG") for data in (path.read_bytes() for path in paths[:1])]
    data = bytearray(paths[0].read_bytes())
    data[places[0]] ^= 1
    paths[0].write_bytes(data)
    os.truncate(paths[1], paths[1].read_bytes().rindex(b"\x89PNG") + 9)
    paths[2].unlink()
    assert causes(records) == {
        0: "the bytes of the record have changed since their checksum was made",
        9: "the shard ends early",
    } | dict.fromkeys(range(10, 15), "the shard has vanished")
    with pytest.raises(UserError, match=f"The shard {paths[1]} has .* delete"):
        source.open([str(path) for path in paths[:2]])
    with pytest.raises(UserError, match=f"no shard {paths[2]}"):
        source.open([str(path) for path in paths[2:]])


def test_damaged_entries_lead_to_no_wrong_record(made):
    source, folder = made
    wanted = source.random_access("train").read(range(COUNT))
    index = sorted(folder.glob("*.index"))[0]
    whole = index.read_bytes()
    for place in range(40, len(whole)):
        index.write_bytes(whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :])
        found = source.random_access("train").read(range(COUNT))
        number = (place - 40) // 16
        assert found[number] in (indexed.MISMATCH, indexed.BAD_ENTRY, indexed.TOO_LONG)
        assert found[:number] + found[number + 1 :] == wanted[:number] + wanted[number + 1 :]
    index.write_bytes(whole[:40] + bytes(len(whole) - 40))
    assert set(causes(source.random_access("train"))) == set(range(EACH))


def test_an_index_that_is_cut_after_the_opening(made):
    source, folder = made
    records = source.random_access("train")
    os.truncate(sorted(folder.glob("*.index"))[1], 40 + 16 * 2)
    cause = "the index entry of the record is damaged"
    assert causes(records) == dict.fromkeys(range(7, 10), cause)


def test_a_record_too_long_for_memory(made, monkeypatch):
    source, _ = made
    monkeypatch.setattr(indexed, "MOST_BYTES", 10)
    assert set(causes(source.random_access("train")).values()) == {indexed.TOO_LONG.cause}


def _open(source, barrier, counts):
    barrier.wait(30)
    try:
        counts.put(source.num_input_examples("train"))
    except Exception as error:
        counts.put(repr(error))


def test_processes_that_race(tmp_path):
    write_tfrecord(tmp_path / "0.tfrecord", range(COUNT))
    source = TFRecordSource("photos", {"train": f"{tmp_path}/*"}, FIELDS)
    # Forked, for new ones would import TensorFlow for ten seconds; none of it is used in them.
    context = multiprocessing.get_context("fork")
    barrier, counts = context.Barrier(3), context.Queue()
    arguments = (source, barrier, counts)
    processes = [context.Process(target=_open, args=arguments) for _ in range(3)]
    for process in processes:
        process.start()
    found = [counts.get(timeout=60) for _ in processes]
    for process in processes:
        process.join(60)
    assert found == [COUNT] * 3
    assert len(list(tmp_path.iterdir())) == 2  # nothing unfinished is left
    assert causes(source.random_access("train")) == {}


def test_many_threads(made):
    records = made[0].random_access("train")
    wanted, wrong = records.read(range(COUNT)), []

    def read_at_random(seed):
        generator = np.random.default_rng(seed)
        for _ in range(50):
            indices = generator.integers(0, COUNT, 9)
            if records.read(indices) != [wanted[index] for index in indices]:
                wrong.append(indices)

    threads = [threading.Thread(target=read_at_random, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_a_refused_shard_stops_the_others_and_is_named(made, capsys):
    source, folder = made
    path = sorted(folder.iterdir())[1]
    path.write_bytes(b"neither of both" * 100)
    with pytest.raises(UserError, match=f"The shard {path} is no"):
        source.random_access("train")
    assert not path.with_name(path.name + ".index").exists()


def test_a_billion_records_open_in_little_memory(tmp_path):
    shards, each, size = 100, 10_000_000, 1 << 36
    record = encode_example({"image/encoded": "a", "caption": "the last of a billion"})
    header = struct.pack("<8sI8sQQ", b"SimVLMix", 1, b"tfrecord", each, size)
    header += struct.pack("<I", google_crc32c.value(header))
    entry = struct.pack("<QII", size - len(record), len(record), google_crc32c.value(record))
    for number in range(shards):
        with open(tmp_path / f"{number:03}.tfrecord", "wb") as shard:
            shard.truncate(size)  # sparse: no bytes on the disk
            shard.seek(-len(record), os.SEEK_END)
            shard.write(record)
        with open(tmp_path / f"{number:03}.tfrecord.index", "wb") as index:
            index.write(header)
            index.truncate(len(header) + 16 * each)
            index.seek(-16, os.SEEK_END)
            index.write(entry)
    source = TFRecordSource("vast", {"train": f"{tmp_path}/*.tfrecord"}, FIELDS)
    process = psutil.Process()
    gc.collect()
    before = process.memory_info().rss
    records = source.random_access("train")
    assert len(records) == 10**9
    assert records.read(range(each - 1, 10**9, each)) == [record] * shards
    scattered = np.random.default_rng(0).integers(0, 10**9, 5000)
    assert len(records.read(scattered)) == 5000
    assert process.memory_info().rss - before < 50 << 20


def test_training_reads_both_in_an_order_of_its_own(made, data_folder):
    source, _ = made
    features = task_features(default_vocabulary(), image=True)
    named = functools.partial(from_record, targets="{caption}", inputs="a", image="image/encoded")
    seqio.TaskRegistry.add(
        "indexed_task",
        source=source,
        preprocessors=[named, source_to_target],
        output_features=features,
    )
    lengths = {"image": 1, "example_seed": 2, "inputs": 16, "targets": 40}
    try:
        stream = GroupStream({"indexed_task": 1}, {}, 5, lengths, {}, image_size=(8, 8), seed=1)
        batches = stream.batches()
        seen = [next(batches) for _ in range(6)]
        later = next(stream.batches(4))
    finally:
        seqio.TaskRegistry.remove("indexed_task")
    for name, array in later.items():
        np.testing.assert_array_equal(array, seen[4][name])
    texts = [
        tuple(row[row != 0])
        for batch in seen
        for row in batch["decoder_target_tokens"].reshape(5, -1)
    ]
    vocabulary = default_vocabulary()
    wanted = sorted((*vocabulary.encode(caption(n)), 1) for n in range(COUNT))
    assert sorted(texts[:COUNT]) == sorted(texts[COUNT:]) == wanted
    assert texts[:COUNT] != texts[COUNT:]
    assert all(batch["image"].any(axis=(2, 3, 4)).all() for batch in seen)
    assert not stream.ledger.named
