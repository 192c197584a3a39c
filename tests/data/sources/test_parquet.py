import os
import threading

import numpy as np
import pyarrow as pa
import pytest
import tensorflow as tf
from pyarrow import parquet as pq

from simvlm_jax.data.sources import ParquetSource, Unreadable, parquet
from simvlm_jax.errors import UserError

STRING, INTEGER, FLOAT = (
    tf.io.FixedLenFeature([], dtype) for dtype in (tf.string, tf.int64, tf.float32)
)
PAIR = {"image": STRING, "caption": STRING}
COUNT, GROUP = 23, 5
DAMAGED = Unreadable("the bytes of the row group are damaged")


def image(index):
    return np.random.default_rng(index).bytes(3000)


def rows(count=COUNT):
    """As Hugging Face's `datasets` writes images and captions."""
    images = [{"bytes": image(i), "path": f"{i}.png"} for i in range(count)]
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    captions = [f"caption {i} ü" for i in range(count)]
    return pa.table({"image": pa.array(images, kind), "caption": captions, "n": range(count)})


def write(path, table, **options):
    pq.write_table(table, path, row_group_size=GROUP, write_page_checksum=True, **options)


def source(path, features=None, **options):
    return ParquetSource("letters", {"train": str(path)}, features or PAIR, **options)


@pytest.fixture
def path(tmp_path):
    write(tmp_path / "a.parquet", rows())
    return tmp_path / "a.parquet"


def parsed(made, records):
    return [
        record
        if isinstance(record, Unreadable)
        else {name: value.numpy() for name, value in made.parse(record, 0).items() if name != "id"}
        for record in records
    ]


def test_hugging_faces_images_by_index(path, tmp_path):
    write(tmp_path / "b.parquet", rows(7))
    made = source(tmp_path / "*.parquet")
    indices = [29, 0, 22, 23, 4, 5, 0]
    found = parsed(made, made.random_access("train").read(indices))
    wanted = [{"image": image(i % COUNT), "caption": f"caption {i % COUNT} ü".encode()}
              for i in indices]  # fmt: skip
    assert found == wanted
    assert made.num_input_examples("train") == COUNT + 7
    assert len(list(made.get_dataset("train").as_numpy_iterator())) == COUNT + 7


@pytest.mark.parametrize(
    ("column", "feature", "wanted"),
    [
        (pa.array(["a", "ü"]), STRING, [b"a", "ü".encode()]),
        (pa.array(["a", "b"], pa.large_string()), STRING, [b"a", b"b"]),
        (pa.array(["a", "b"]).dictionary_encode(), STRING, [b"a", b"b"]),
        (pa.array([b"\0a", b"\xff"], pa.large_binary()), STRING, [b"\0a", b"\xff"]),
        (pa.array([b"ab", b"cd"], pa.binary(2)), STRING, [b"ab", b"cd"]),
        (pa.array([3, 255], pa.uint8()), INTEGER, [3, 255]),
        (pa.array([-(2**63), 2**63 - 1]), INTEGER, [-(2**63), 2**63 - 1]),
        (pa.array([0.5, 2.0], pa.float32()), FLOAT, [0.5, 2.0]),
        (pa.array([0.5, 2.0], pa.float16()), FLOAT, [0.5, 2.0]),
        (pa.array([1, 2]), FLOAT, [1.0, 2.0]),
        (pa.array([["a", "b"], ["c", "d"]]), tf.io.FixedLenFeature([2], tf.string),
         [[b"a", b"b"], [b"c", b"d"]]),
        (pa.array([[1, 2], [3, 4]], pa.list_(pa.int32(), 2)),
         tf.io.FixedLenFeature([2], tf.int64), [[1, 2], [3, 4]]),
        (pa.array([[0.5], [2.0]]), FLOAT, [0.5, 2.0]),
    ],
)  # fmt: skip
def test_types(tmp_path, column, feature, wanted):
    write(tmp_path / "a.parquet", pa.table({"a.b": column, "a": [1, 2]}))  # a dot is no path
    made = source(tmp_path / "a.parquet", {"x": feature}, columns={"x": "a.b"})
    found = parsed(made, made.random_access("train").read([0, 1]))
    assert [np.asarray(row["x"]).tolist() for row in found] == wanted


@pytest.mark.parametrize(
    ("column", "feature", "sentence"),
    [
        (pa.array([1]), STRING, "is int64 and should be text, bytes or a struct with bytes"),
        (pa.array(["a"]), INTEGER, "is string and should be integers"),
        (pa.array([0.5]), INTEGER, "is double and should be integers"),
        (pa.array([True]), INTEGER, "is bool and should be integers"),
        (pa.array(["a"]), FLOAT, "is string and should be numbers"),
        (pa.array([{"path": "a"}]), STRING, "is struct<path: string> and should be text"),
        (
            pa.array([1]),
            tf.io.FixedLenFeature([2], tf.int64),
            "is int64 and should be lists of 2 integers",
        ),
    ],
)
def test_other_types_are_refused_at_opening(tmp_path, column, feature, sentence):
    write(tmp_path / "a.parquet", pa.table({"x": column}))
    with pytest.raises(UserError, match=rf"'x' of .*a\.parquet {sentence}"):
        source(tmp_path / "a.parquet", {"x": feature}).random_access("train")


def test_columns_that_are_missing_or_twice(path):
    with pytest.raises(UserError, match=r"no columns named 'text'; it has \['image', 'caption'"):
        source(path, columns={"caption": "text"}).random_access("train")
    twice = pa.Table.from_arrays([pa.array(["a"]), pa.array(["b"])], ["caption", "caption"])
    write(path, twice)
    with pytest.raises(UserError, match="2 columns named 'caption'"):
        source(path, {"caption": STRING}).random_access("train")


def test_values_that_cannot_be(tmp_path):
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    images = pa.array([None, {"bytes": None, "path": "a"}, *[{"bytes": b"i"}] * 2], kind)
    wrong = pa.array([b"a", b"b", None, b"\xff"]).cast(pa.binary()).view(pa.string())
    write(tmp_path / "a.parquet", pa.table({"image": images, "caption": wrong}))
    found = source(tmp_path / "a.parquet").random_access("train").read(range(4))
    assert [record.cause for record in found] == [
        "the column image is null",
        "the column image is null",
        "the column caption is null",
        "the column caption is not UTF-8",
    ]


def damage(path, marker):
    content = bytearray(path.read_bytes())
    place = content.index(marker)
    content[place : place + 8] = bytes(8)
    path.write_bytes(content)


def test_a_damaged_page_harms_its_row_group_alone(path):
    write(path, rows(), compression="none", use_dictionary=False)
    damage(path, image(7)[:16])
    made = source(path)
    by_index = made.random_access("train").read(range(COUNT))
    bad = [i for i, record in enumerate(by_index) if record == DAMAGED]
    assert bad == [5, 6, 7, 8, 9]
    assert [parsed(made, [by_index[i]])[0]["image"] for i in (4, 10)] == [image(4), image(10)]
    assert list(made.rows(str(path))) == by_index


@pytest.mark.parametrize("keep", [0, 3, 100, -1])
def test_a_damaged_footer_is_refused(path, keep):
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(UserError, match=r"a\.parquet is not a readable Parquet file"):
        source(path).random_access("train")


def test_hostile_bytes_never_raise_anything_else(path):
    content = path.read_bytes()
    random = np.random.default_rng(0)
    for _ in range(150):
        hostile = bytearray(content)
        for place in random.integers(len(content) - 2500, len(content), 4):
            hostile[place] = random.integers(256)
        path.write_bytes(hostile)
        try:
            reader = source(path).random_access("train")
        except UserError:
            continue
        found = reader.read(range(min(len(reader), COUNT)))
        assert all(isinstance(record, bytes | Unreadable) for record in found)


def test_a_file_that_changes_or_vanishes_is_found(path):
    reader = source(path).random_access("train")
    assert isinstance(reader.read([0])[0], bytes)
    write(path, rows(7))
    changed = Unreadable("the shard has changed since it was opened")
    assert reader.read([0, 9]) == [changed, changed]  # also what is still in memory
    os.unlink(path)
    assert reader.read([0]) == [Unreadable("the shard has vanished since it was opened")]


def test_large_row_groups_can_only_be_read_in_order(path, monkeypatch):
    monkeypatch.setattr(parquet, "LARGEST_GROUP", 14_000)
    made = source(path)
    with pytest.raises(UserError, match="row group of .* run `simvlm prepare`"):
        made.random_access("train")
    found = parsed(made, made.rows(str(path)))
    assert [row["image"] for row in found] == [image(i) for i in range(COUNT)]
    # What is not wanted does not count.
    assert len(source(path, {"caption": STRING}).random_access("train")) == COUNT


def test_a_dictionary_bomb_is_refused_within_bounds(tmp_path, monkeypatch):
    column = pa.DictionaryArray.from_arrays(pa.array([0] * 3000, pa.int32()), ["x" * 2_000_000])
    pq.write_table(pa.table({"caption": column}), tmp_path / "a.parquet", store_schema=False)
    assert (tmp_path / "a.parquet").stat().st_size < 200_000  # of 6 GB
    before = pa.total_allocated_bytes()
    most = []
    load = parquet.ParquetFile._batches

    def watching(self, file, group):
        for batch in load(self, file, group):
            most.append(pa.total_allocated_bytes() - before)
            yield batch

    monkeypatch.setattr(parquet.ParquetFile, "_batches", watching)
    made = source(tmp_path / "a.parquet", {"caption": STRING})
    found = made.random_access("train").read([0])
    assert found == [Unreadable("the row group unpacks to more than 256 MiB")]
    assert max(most) < 2 * parquet.LARGEST_UNPACKED


def test_each_row_group_is_read_once_for_a_batch_and_kept(path, monkeypatch):
    loads = []
    load = parquet.ParquetFile._load

    def counting(self, file, group):
        loads.append(group)
        return load(self, file, group)

    monkeypatch.setattr(parquet.ParquetFile, "_load", counting)
    reader = source(path).random_access("train")
    reader.read([0, 22, 1, 21, 2])
    assert loads == [0, 4]
    reader.read([3, 20])
    assert loads == [0, 4]
    monkeypatch.setattr(parquet, "KEPT", 20_000)  # one row group
    reader = source(path).random_access("train")
    reader.read([0, 22, 1, 21, 2])
    reader.read([0])
    assert loads == [0, 4, 0, 4, 0]


def test_from_many_threads(path, monkeypatch):
    monkeypatch.setattr(parquet, "KEPT", 40_000)
    reader = source(path).random_access("train")
    wanted, wrong = reader.read(range(COUNT)), []

    def read_at_random(seed):
        for indices in np.random.default_rng(seed).integers(0, COUNT, (20, 6)):
            if reader.read(indices) != [wanted[index] for index in indices]:
                wrong.append(indices)

    threads = [threading.Thread(target=read_at_random, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_groups_of_many_small_rows(tmp_path, monkeypatch):
    monkeypatch.setattr(parquet, "MOST_ROWS", 2)
    monkeypatch.setattr(parquet, "MERGED", 16)
    table = pa.table({"image": [b"i"] * 999, "caption": [f"{i}" for i in range(999)]})
    pq.write_table(table, tmp_path / "a.parquet")
    made = source(tmp_path / "a.parquet")
    found = parsed(made, made.random_access("train").read(range(999)))
    assert [int(row["caption"]) for row in found] == list(range(999))


def test_an_empty_file(tmp_path):
    write(tmp_path / "a.parquet", rows(1).slice(0, 0))
    assert source(tmp_path / "a.parquet").num_input_examples("train") == 0
    assert list(source(tmp_path).rows(str(tmp_path / "a.parquet"))) == []
