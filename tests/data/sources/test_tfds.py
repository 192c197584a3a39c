import importlib.resources
import importlib.resources.abc
import shutil
import socket
import sys

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds

from simvlm_jax.data.sources import TFDSSource, Unreadable
from simvlm_jax.data.testing_records import draw
from simvlm_jax.errors import UserError

STRING = tf.io.FixedLenFeature([], tf.string)
PAIR = {"image": STRING, "captions/text": STRING}
FORMATS = ("tfrecord", "array_record")
COUNTS = {"train": 9, "test": 2}
IMAGES = [draw(colour, "circle", "left") for colour in ("red", "green", "blue")]


def prepare(folder, file_format, name, features, example):
    """Has tensorflow-datasets itself write a data set, in two files for training."""
    # tensorflow-datasets imports its backport to find its own folder, and does not ask for it.
    sys.modules.setdefault("importlib_resources", importlib.resources)
    features = tfds.features.FeaturesDict(features)
    tfds.dataset_builders.store_as_tfds_dataset(
        name=name,
        version="1.2.0",
        features=features,
        split_datasets={
            split: [(i, example(i)) for i in range(count)] for split, count in COUNTS.items()
        },
        data_dir=str(folder),
        file_format=file_format,
        download_config=tfds.download.DownloadConfig(num_shards=2),
    )


@pytest.fixture(scope="module", params=FORMATS)
def prepared(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    pair = {"image": tfds.features.Image(encoding_format="png"),
            "captions": tfds.features.Sequence({"text": tfds.features.Text()}),
            "label": tfds.features.ClassLabel(names=["a", "b"])}  # fmt: skip
    prepare(folder, request.param, "pairs", pair, lambda i: {
        "image": tfds.core.utils.image_utils.decode_image(IMAGES[i % 3])[..., :3],
        "captions": [{"text": f"caption {i}"}], "label": i % 2})  # fmt: skip
    text = {"text": tfds.features.Text(), "url": tfds.features.Text()}
    prepare(folder, request.param, "web", text, lambda i: {"text": f"text {i}\nü", "url": "u"})
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
    assert len(records) == COUNTS["train"] == sum(np.diff(records.ends, prepend=0))
    found = [made.parse(record, 0) for record in records.read(range(len(records)))]
    builder = tfds.builder_from_directory(str(prepared / "pairs" / "1.2.0"))
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
    made = TFDSSource("web:1.2.0", {"validation": "test"}, {"text": STRING}, prepared.name)
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
    (first, *_) = sorted((tmp_path / "copy" / "pairs" / "1.2.0").glob("*train*-00000-of-*"))
    return tmp_path / "copy", first


def test_files_that_hold_other_records(own):
    folder, first = own

    def number_anew():
        for index in first.parent.glob("*.index"):
            index.unlink()

    number_anew()
    second = first.with_name(first.name.replace("00000-of", "00001-of"))
    second_content = second.read_bytes()
    first_content, made = first.read_bytes(), source(folder)
    test = next(first.parent.glob("*test*-00000-of-*"))
    first.write_bytes(test.read_bytes())
    with pytest.raises(UserError, match=rf"{first.name} has 1 records and should have \d"):
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
