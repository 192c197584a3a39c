import copy
import pickle
import threading

import numpy as np
import pytest
import seqio
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from simvlm_jax.data.records import encode_example, write_shards
from simvlm_jax.data.sources import ArrayRecordSource, Unreadable
from simvlm_jax.errors import UserError

FEATURES = {
    "id": tf.io.FixedLenFeature([], tf.int64),
    "content": tf.io.FixedLenFeature([], tf.string),
}
COUNT, SHARDS = 103, 4


def content(index):
    return bytes([index, 0, 0]) * (1 + index % 5) + b"\x00"  # ends in zeros: no C strings


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "letters"
    rows = [encode_example({"id": i, "content": content(i)}) for i in range(COUNT)]
    write_shards(folder, "train", rows, SHARDS)
    write_shards(folder, "empty", [], 1)
    return folder


@pytest.fixture
def source(folder, monkeypatch):
    monkeypatch.setenv("SIMVLM_DATA_DIR", str(folder.parent))
    return ArrayRecordSource("letters", ["train", "empty", "absent"], FEATURES)


def ids(dataset):
    return [int(example["id"]) for example in dataset.as_numpy_iterator()]


def test_file_order_and_content(source):
    examples = list(source.get_dataset("train", shuffle=False).as_numpy_iterator())
    assert [int(example["id"]) for example in examples] == list(range(COUNT))
    assert [example["content"] for example in examples] == [content(i) for i in range(COUNT)]
    assert source.num_input_examples("train") == COUNT


def test_empty_split(source):
    assert source.num_input_examples("empty") == 0
    assert ids(source.get_dataset("empty", shuffle=True)) == []


def test_shuffle_is_of_all_records_and_seeded(source):
    first = ids(source.get_dataset("train", shuffle=True, seed=1))
    assert first == ids(source.get_dataset("train", shuffle=True, seed=1))
    assert first != ids(source.get_dataset("train", shuffle=True, seed=2))
    assert sorted(first) == list(range(COUNT))
    quarter = COUNT // 4  # the first quarter comes from all files, not from one
    assert len({index // quarter for index in first[:quarter]}) >= 4


@pytest.mark.parametrize("hosts", [1, 2, 3, 4])
def test_shards_of_hosts_partition_the_split(source, hosts):
    parts = [
        ids(source.get_dataset("train", shuffle=False, shard_info=seqio.ShardInfo(host, hosts)))
        for host in range(hosts)
    ]
    assert sorted(index for part in parts for index in part) == list(range(COUNT))


@settings(deadline=None, max_examples=30)
@given(indices=st.lists(st.integers(0, COUNT - 1), max_size=40))
def test_random_access(folder, indices):
    source = ArrayRecordSource(str(folder), ["train"], FEATURES)  # absolute paths work as well
    records = source.random_access("train").read(np.array(indices, np.int64))
    assert [int(source.parse(tf.constant(record), 7)["id"]) for record in records] == indices


@pytest.mark.parametrize("index", [-1, COUNT])
def test_random_access_out_of_range(source, index):
    with pytest.raises(IndexError, match=str(COUNT)):
        source.random_access("train").read([0, index])


def test_random_access_from_many_threads(source):
    reader = source.random_access("train")
    wanted = reader.read(range(COUNT))
    wrong = []

    def read_at_random(seed):
        generator = np.random.default_rng(seed)
        for _ in range(100):
            indices = generator.integers(0, COUNT, 9)
            if reader.read(indices) != [wanted[index] for index in indices]:
                wrong.append(indices)

    threads = [threading.Thread(target=read_at_random, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_nothing_is_read_before_the_first_use(monkeypatch, tmp_path):
    monkeypatch.setenv("SIMVLM_DATA_DIR", str(tmp_path / "nowhere"))
    source = ArrayRecordSource("letters", ["train"], FEATURES)
    with pytest.raises(UserError, match="no data folder .*nowhere"):
        source.get_dataset("train")


def test_copies_work(source):
    for twin in (copy.deepcopy(source), pickle.loads(pickle.dumps(source))):
        assert twin.num_input_examples("train") == COUNT


def test_too_few_files_for_the_hosts(source):
    with pytest.raises(UserError, match="4 files, too few for 5 shards"):
        source.get_dataset("train", shard_info=seqio.ShardInfo(0, 5))


def test_unknown_and_absent_split(source):
    with pytest.raises(UserError, match="no split 'test'; it has train, empty, absent"):
        source.get_dataset("test")
    with pytest.raises(UserError, match="no split named 'absent'"):
        source.num_input_examples("absent")


def test_damaged_files_are_named(source, folder, tmp_path, monkeypatch):
    monkeypatch.setenv("SIMVLM_DATA_DIR", str(tmp_path))
    rows = [np.random.default_rng(i).bytes(2000) for i in range(60)]  # does not compress
    (path,) = write_shards(tmp_path / "letters", "train", rows, 1)
    damaged = bytearray(path.read_bytes())
    start = damaged.index(rows[30][:16])
    damaged[start : start + 16] = bytes(16)
    path.write_bytes(damaged)
    found = source.random_access("train").read(range(60))
    causes = {i: record.cause for i, record in enumerate(found) if isinstance(record, Unreadable)}
    assert causes == {30: "the bytes of the record are damaged"}
    assert [record for i, record in enumerate(found) if i != 30] == rows[:30] + rows[31:]
    with pytest.raises(Exception, match=f"Record 30 of .*{path.name} cannot be read"):
        list(source.get_dataset("train", shuffle=False))
    path.write_bytes(b"no records at all")
    with pytest.raises(UserError, match=f"{path.name} is not a readable ArrayRecord file"):
        source.num_input_examples("train")


def test_a_record_without_an_id_has_its_index(source):
    source = ArrayRecordSource("letters", ["train"], {"content": FEATURES["content"]})
    assert ids(source.get_dataset("train", shuffle=False)) == list(range(COUNT))
    last = ids(source.get_dataset("train", shuffle=False, shard_info=seqio.ShardInfo(3, 4)))
    assert last == list(range(COUNT - len(last), COUNT))


def test_the_placeholder_parses_to_nothing(source):
    parsed = source.parse(tf.constant(source.placeholder()), 7)
    assert {name: value.numpy() for name, value in parsed.items()} == {"id": 0, "content": b""}


def test_in_a_seqio_task(source):
    seqio.TaskRegistry.add("letters_task", source=source, preprocessors=[], output_features={})
    try:
        task = seqio.get_mixture_or_task("letters_task")
        arguments = {"sequence_length": {}, "split": "train", "shuffle": False}
        assert ids(task.get_dataset(**arguments)) == list(range(COUNT))
        more_hosts_than_files = [
            ids(task.get_dataset(**arguments, shard_info=seqio.ShardInfo(host, 6)))
            for host in range(6)
        ]
        assert sorted(i for part in more_hosts_than_files for i in part) == list(range(COUNT))
    finally:
        seqio.TaskRegistry.remove("letters_task")
