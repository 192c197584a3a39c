import json

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from made_inputs import example, image, pair, silent, write
from simvlm_jax.data.preparing import shards
from simvlm_jax.data.preparing.inputs import Input, record_id
from simvlm_jax.data.sources import ArrayRecordSource
from simvlm_jax.errors import UserError


@given(records=st.integers(1, 500), per_shard=st.integers(1, 90))
def test_shards_hold_all_and_are_alike(records, per_shard):
    counts = shards.shard_counts(records, None, per_shard)
    assert sum(counts) == records and max(counts) <= per_shard
    assert max(counts) - min(counts) <= 1 and min(counts) > 0
    assert len(counts) == -(-records // per_shard)


def test_shards_by_number():
    assert shards.shard_counts(7, 3, None) == [2, 2, 3]
    assert shards.shard_counts(25_000, None, None) == [8333, 8333, 8334]
    with pytest.raises(UserError, match="--shards=3 is more than the 2 records"):
        shards.shard_counts(2, 3, None)


@pytest.mark.parametrize(("share", "split"), [(1.0, "train"), (-0.1, "train"), (0.1, "validation")])
def test_shares(share, split):
    with pytest.raises(UserError, match="--validation_share"):
        shards.check_share(share, split)


def job(tmp_path, chosen, output_format="array_record", records=None):
    records = records or [pair(number, source=f"s{number}", rest=7) for number in range(9)]
    source = Input(write(tmp_path / "in", records), keep=("source",))
    np.save(tmp_path / "chosen.npy", np.array(chosen))
    counts = shards.shard_counts(len(chosen), 2, None)
    out = tmp_path / "out"
    return shards.PairWriting(
        out, "train", counts, output_format, source=source, chosen=tmp_path / "chosen.npy"
    )


FIELDS = {
    "id": tf.io.FixedLenFeature([], tf.int64),
    **dict.fromkeys(("image/encoded", "caption", "source"), tf.io.FixedLenFeature([], tf.string)),
}


def check(serialized, chosen):
    assert len(serialized) == len(chosen)
    for record, number in zip(serialized, chosen, strict=True):
        found = tf.io.parse_single_example(record, FIELDS)
        assert found["image/encoded"].numpy() == image(number)
        assert found["caption"].numpy().decode() == f"picture {number}"
        assert found["source"].numpy().decode() == f"s{number}"
        shard, position = (0, number) if number < 4 else (1, number - 4)
        name = f"part-0000{shard}-of-00002.array_record"
        assert found["id"].numpy() == record_id(name, str(position))
        assert "rest" not in tf.train.Example.FromString(record).features.feature


def test_array_records(tmp_path):
    chosen = [0, 2, 3, 7, 8]
    facts = job(tmp_path, chosen).write(tmp_path, 1, silent)
    assert [(fact["name"], fact["records"]) for fact in facts] == [
        ("train-00000-of-00002.array_record", 2),
        ("train-00001-of-00002.array_record", 3),
    ]
    records = ArrayRecordSource(str(tmp_path / "out"), ["train"], {}).random_access("train")
    check(records.read(range(5)), chosen)


def test_tfrecords_are_read_by_tensorflow(tmp_path):
    chosen = [1, 5, 6]
    facts = job(tmp_path, chosen, "tfrecord").write(tmp_path, 1, silent)
    paths = [str(tmp_path / "out" / fact["name"]) for fact in facts]
    assert paths[0].endswith("train-00000-of-00002.tfrecord")
    check(list(tf.data.TFRecordDataset(paths).as_numpy_iterator()), chosen)


def test_a_damaged_shard_is_written_again_to_the_same_bytes(tmp_path):
    work = job(tmp_path, [0, 1, 2])
    facts = work.write(tmp_path, 1, silent)
    first, second = (tmp_path / "out" / fact["name"] for fact in facts)
    before, moment = second.read_bytes(), first.stat().st_mtime_ns
    second.write_bytes(before[:-1])
    assert work.whole(json.dumps(facts[0]).encode())
    assert not work.whole(json.dumps(facts[1]).encode())
    assert work.write(tmp_path, 1, silent) == facts
    assert second.read_bytes() == before and first.stat().st_mtime_ns == moment


def test_a_record_that_changed_since_is_named(tmp_path):
    bad = [pair(0, source="a"), example(image=image(1), caption=b"\xff", source="a")]
    with pytest.raises(UserError, match="Record 0 of .*part-00001-of-00002.* cannot be now"):
        job(tmp_path, [0, 1], records=bad).write(tmp_path, 1, silent)
