import pytest
import tensorflow as tf
from array_record.python import array_record_module

from simvlm_jax.data import records


def test_example_keeps_types_and_bytes():
    features = {"id": 2**40, "text": "größe", "image": b"\x00\xff\x00", "score": 0.25}
    message = tf.train.Example.FromString(records.encode_example(features))
    found = message.features.feature
    assert list(found["id"].int64_list.value) == [2**40]
    assert list(found["score"].float_list.value) == [0.25]
    assert found["text"].bytes_list.value[0].decode() == "größe"
    assert found["image"].bytes_list.value[0] == b"\x00\xff\x00"


def test_example_does_not_depend_on_the_order_of_its_features():
    forward = {name: name for name in "abcdefgh"}
    backward = dict(reversed(forward.items()))
    assert records.encode_example(forward) == records.encode_example(backward)


@pytest.mark.parametrize(("number", "count"), [(10, 4), (3, 4), (0, 1), (8, 1)])
def test_shards_keep_the_order_and_are_even(tmp_path, number, count):
    wanted = [f"record {index}".encode() for index in range(number)]
    paths = records.write_shards(tmp_path / "new", "train", wanted, count)
    shards = []
    for path in paths:
        reader = array_record_module.ArrayRecordReader(str(path))
        assert reader.ok()
        shards.append(reader.read_all() if reader.num_records() else [])
        assert "group_size:1," in reader.writer_options_string()
    assert [record for shard in shards for record in shard] == wanted
    lengths = [len(shard) for shard in shards]
    assert max(lengths) - min(lengths) <= 1
    assert [path.name for path in paths] == [
        f"train-{index:05d}-of-{count:05d}.array_record" for index in range(count)
    ]


def test_equal_records_give_equal_files(tmp_path):
    wanted = [b"a" * 1000, b"b"]
    first = records.write_shards(tmp_path / "first", "train", wanted, 1)[0]
    second = records.write_shards(tmp_path / "second", "train", wanted, 1)[0]
    assert first.read_bytes() == second.read_bytes()
