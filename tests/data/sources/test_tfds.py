import shutil
import socket

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds

from simvlm_jax.data.sources import TFDSSource, Unreadable, index
from simvlm_jax.data.testing_records import draw
from simvlm_jax.errors import UserError
from tfds_writer import write_tfds

STRING = tf.io.FixedLenFeature([], tf.string)
PAIR = {"image": STRING, "captions/text": STRING}
FORMATS = ("tfrecord", "array_record")
COUNT = 9
IMAGES = [draw(colour, "circle", "left") for colour in ("red", "green", "blue")]


@pytest.fixture(scope="module", params=FORMATS)
def prepared(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    pair = {"image": "image", "label": tfds.features.ClassLabel(names=["a", "b"]),
            "captions": tfds.features.Sequence({"text": tfds.features.Text()})}  # fmt: skip
    pixels = [tfds.core.utils.image_utils.decode_image(image)[..., :3] for image in IMAGES]
    rows = [
        {"image": pixels[i % 3], "captions": [{"text": f"caption {i}"}], "label": i % 2}
        for i in range(COUNT)
    ]
    write_tfds(folder, pair, rows, request.param, name="pairs", splits=("train", "test"), shards=2)
    texts = [{"text": f"text {i}\nü", "url": "u"} for i in range(2)]
    kinds = {"text": "text", "url": "text"}
    write_tfds(folder, kinds, texts, request.param, name="web", splits=("test",))
    return folder


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("asked the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)


def source(folder, name="pairs", features=None, splits=None):
    return TFDSSource(name, splits or {"train": "train"}, features or PAIR, str(folder))


def test_the_records_are_those_that_tfds_reads(prepared):
    made = source(prepared, features={**PAIR, "label": tf.io.FixedLenFeature([], tf.int64)})
    records = made.random_access("train")
    assert len(records) == COUNT == sum(np.diff(records.ends, prepend=0))
    found = [made.parse(record, 0) for record in records.read(range(len(records)))]
    builder = tfds.builder_from_directory(str(prepared / "pairs" / "1.0.0"))
    decoders = {"image": tfds.decode.SkipDecoding()}
    if builder.info.file_format.value == "tfrecord":
        wanted = list(builder.as_dataset("train", decoders=decoders).as_numpy_iterator())
    else:
        wanted = list(builder.as_data_source("train", decoders=decoders))
    for mine, theirs in zip(found, wanted, strict=True):
        assert mine["image"].numpy() == theirs["image"]  # still encoded
        assert mine["captions/text"].numpy() == theirs["captions"]["text"][0]
        assert mine["label"].numpy() == theirs["label"]


def test_text_as_of_c4(prepared, monkeypatch):
    monkeypatch.setenv("SIMVLM_DATA_DIR", str(prepared.parent))
    made = TFDSSource("web:1.0.0", {"validation": "test"}, {"text": STRING}, prepared.name)
    examples = list(made.get_dataset("validation", shuffle=False).as_numpy_iterator())
    assert sorted(example["text"].decode() for example in examples) == ["text 0\nü", "text 1\nü"]
    assert [example["id"] for example in examples] == [0, 1]


def test_what_is_not_prepared_is_said_with_the_command(prepared):
    with pytest.raises(UserError, match=r"not prepared .*`tfds build c4/en:3.1.0 --data_dir=/"):
        source(prepared, "c4/en:3.1.0").random_access("train")
    with pytest.raises(UserError, match=r"no split 'validation'; it has t\w+, t\w+\."):
        source(prepared, splits={"train": "validation"}).random_access("train")
    with pytest.raises(UserError, match="no split 'train.:50%.'"):
        source(prepared, splits={"train": "train[:50%]"}).random_access("train")
    with pytest.raises(UserError, match="'no name' cannot be opened|no name cannot be opened"):
        source(prepared, "no name").random_access("train")


@pytest.fixture
def own(prepared, tmp_path):
    """A copy that a test may damage, and its first file."""
    shutil.copytree(prepared, tmp_path / "copy")
    (first, *_) = sorted((tmp_path / "copy" / "pairs" / "1.0.0").glob("*train*-00000-of-*"))
    return tmp_path / "copy", first


def test_files_that_hold_other_records(own):
    folder, first = own

    def number_anew():
        for path in first.parent.glob("*.index"):
            path.unlink()

    number_anew()
    second = first.with_name(first.name.replace("00000-of", "00001-of"))
    second_content = second.read_bytes()
    first_content, made = first.read_bytes(), source(folder)
    first.write_bytes(second_content)  # of four records and not five
    with pytest.raises(UserError, match=rf"{first.name} has \d records and should have \d"):
        made.random_access("train")
    number_anew()
    first.write_bytes(first_content[:-7])
    with pytest.raises(UserError, match=first.name):
        made.random_access("train")
    first.write_bytes(first_content)
    second.unlink()
    with pytest.raises(UserError, match=second.name):
        made.random_access("train")
    second.write_bytes(second_content)
    assert not any(isinstance(r, Unreadable) for r in made.random_access("train").read(range(9)))


def test_damaged_descriptions(own):
    folder, first = own
    (first.parent / "dataset_info.json").write_text("{")
    with pytest.raises(UserError, match="pairs cannot be opened"):
        source(folder).random_access("train")


def test_tfrecords_are_indexed_once_even_where_nothing_can_be_written(own, tmp_path, monkeypatch):
    folder, first = own
    monkeypatch.setenv("SIMVLM_CACHE_DIR", str(tmp_path / "cache"))
    written, made = index.written_atomically, source(folder)
    for path in first.parent.glob("*.index"):
        path.unlink()

    def refuse(path):
        if str(path).startswith(str(folder)):
            raise OSError(30, "Read-only file system")
        return written(path)

    monkeypatch.setattr(index, "written_atomically", refuse)
    before = sorted(folder.rglob("*"))
    wanted = made.random_access("train").read(range(COUNT))
    assert sorted(folder.rglob("*")) == before
    indexes = sorted((tmp_path / "cache").rglob("*.index"))
    assert len(indexes) == (2 if "tfrecord" in first.name else 0)
    monkeypatch.setattr(index, "make_index", None)
    assert made.random_access("train").read(range(COUNT)) == wanted


def test_a_damaged_record_is_one_cause(tmp_path):
    write_tfds(tmp_path, {"text": "text"}, [{"text": f"text {i}"} for i in range(3)])
    (shard,) = (tmp_path / "own" / "1.0.0").glob("*train*")
    content = shard.read_bytes()
    place = content.index(b"text 1")
    shard.write_bytes(content[:place] + b"Text" + content[place + 4 :])
    found = source(tmp_path, "own", {"text": STRING}).random_access("train").read(range(3))
    assert [i for i, record in enumerate(found) if isinstance(record, Unreadable)] == [1]
    assert found[1].cause.startswith("the bytes of the record have changed")
