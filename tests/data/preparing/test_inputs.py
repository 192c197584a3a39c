import os
import pickle
import shutil
import sys
import types

import numpy as np
import pytest
import tensorflow as tf

from made_inputs import pair, write
from simvlm_jax.data.preparing import inputs
from simvlm_jax.data.preparing.inputs import Input, fingerprint, record_id, relative_shards, spread
from simvlm_jax.errors import UserError


@pytest.fixture
def folder(tmp_path):
    return write(tmp_path / "in", [pair(number) for number in range(5)])


@pytest.mark.parametrize("path", ["{}", "{}/part-*", "{}/part-00000-of-00002.array_record"])
def test_a_folder_a_pattern_and_a_file(folder, path):
    records = Input(path.format(folder)).open()
    assert len(records) == (2 if path.endswith("array_record") else 5)
    assert pair(0) == records.read([0])[0]
    assert all(os.path.isabs(shard) for shard in records.shards)


def test_a_name_may_look_like_a_pattern(folder, tmp_path):
    os.rename(folder, tmp_path / "in[1]")
    assert len(Input(str(tmp_path / "in[1]")).open()) == 5


def test_an_input_travels_to_other_processes(folder):
    assert len(pickle.loads(pickle.dumps(Input(folder))).open()) == 5


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a.tar", "webdataset"),
        ("a.TFRECORD", "tfrecord"),
        ("a.parquet", "parquet"),
        ("a.jsonl", "jsonl"),
        ("a.csv", "csv"),
        ("a.tsv", "csv"),
        ("a.txt", "text"),
        ("a.jpg", "folder"),
    ],
)
def test_a_format_is_told_by_the_name(tmp_path, name, kind):
    (tmp_path / name).touch()
    assert inputs._guess(str(tmp_path)) == kind
    if kind != "folder":
        assert inputs._guess(str(tmp_path / name)) == kind


def test_texts_beside_images_are_a_folder_of_images(tmp_path):
    (tmp_path / "sub").mkdir()
    for name in ("a.txt", "sub/a.png"):
        (tmp_path / name).touch()
    assert inputs._guess(str(tmp_path)) == "folder"


STRING = tf.io.FixedLenFeature([], tf.string)
BOTH = {"image/encoded": STRING, "title": STRING, "tag": STRING}
SOURCES = [  # module, class, file, image field, what it is made with, names in its records
    ("tfrecord", "TFRecordSource", "a.tfrecord", "jpeg", ({},), {}, ("jpeg", "title")),
    ("parquet", "ParquetSource", "a.parquet", "jpeg", (BOTH, {"image/encoded": "jpeg"}), {}, None),
    ("parquet", "ParquetSource", "a.parquet", None, (BOTH, {"image/encoded": "image"}), {}, None),
    ("json_lines", "JSONLinesSource", "a.jsonl", "file", (BOTH, None, "file"), {}, None),
    ("csv_rows", "CSVSource", "a.csv", None, (BOTH, None, "image"), {"delimiter": ","}, None),
    ("csv_rows", "CSVSource", "a.tsv", None, (BOTH, None, "image"), {"delimiter": "\t"}, None),
    ("webdataset", "WebDatasetSource", "a.tar", None, (BOTH,), {"json": ["title", "tag"]}, None),
    ("text", "TextSource", "a.txt", "", (None, "blank"), {}, ("image/encoded", "text")),
    ("text", "TextSource", "a.jsonl.gz", "", ("title", "blank"), {}, ("image/encoded", "text")),
]


@pytest.mark.parametrize(("module", "name", "file", "image", "given", "named", "fields"), SOURCES)
def test_each_format_has_its_source(
    tmp_path, monkeypatch, module, name, file, image, given, named, fields
):
    (tmp_path / file).touch()
    calls = []

    class Fake:
        def __init__(self, path, splits, *rest, **names):
            calls.append((splits["train"], rest, names))

        def open(self, shards):
            return shards

    fake = types.ModuleType(module)
    setattr(fake, name, Fake)
    monkeypatch.setitem(sys.modules, f"simvlm_jax.data.sources.{module}", fake)
    path = str(tmp_path / file)
    source = Input(path, image_field=image, text_field="title", keep=("tag",), separator="blank")
    assert source.open() == [path]
    assert calls == [(path, given, named)]
    assert (source.image_name, source.text_name) == (fields or ("image/encoded", "title"))


@pytest.mark.parametrize(("text", "fields"), [("caption", {}), ("title", {"caption": "title"})])
def test_a_folder_calls_its_text_caption(tmp_path, monkeypatch, text, fields):
    (tmp_path / "a.png").touch()
    calls = []

    class Fake:
        def __init__(self, *given):
            calls.append(given)

        def open(self, shards):
            return shards

    fake = types.ModuleType("folder")
    fake.FolderSource = Fake
    monkeypatch.setitem(sys.modules, "simvlm_jax.data.sources.folder", fake)
    source = Input(str(tmp_path), text_field=text)
    assert source.open() == [str(tmp_path)] and source.text_name == "caption"
    features = {"image/encoded": STRING, "caption": STRING}
    assert calls == [(str(tmp_path), {"train": str(tmp_path)}, features, fields)]


@pytest.mark.parametrize("format_", ["auto", "tfrecord", "folder"])
def test_a_path_without_anything(tmp_path, format_):
    with pytest.raises(UserError, match="nothing at --input=.*nowhere"):
        Input(str(tmp_path / "nowhere"), format_).open()


def test_formats_that_do_not_fit(tmp_path):
    (tmp_path / "a.docx").touch()
    with pytest.raises(UserError, match="No file of a known format .*--format, one of array_rec"):
        Input(str(tmp_path)).open()
    with pytest.raises(UserError, match="no parquet file"):
        Input(str(tmp_path), "parquet").open()
    with pytest.raises(UserError, match="no format 'excel'; use one of auto, array_record"):
        Input(str(tmp_path), "excel").open()


def test_the_fingerprint_sees_every_change(folder):
    before = fingerprint(Input(folder).open())
    assert fingerprint(Input(folder).open()) == before
    path = f"{folder}/part-00000-of-00002.array_record"
    os.utime(path, ns=(1, 1))
    assert fingerprint(Input(folder).open()) != before
    assert fingerprint(Input(path).open()) != before


def test_ids_do_not_depend_on_where_the_folder_is(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "elsewhere" / "copy")
    names = [relative_shards(Input(str(p)).open()) for p in (folder, tmp_path / "elsewhere")]
    assert names[0] == names[1] == [f"part-0000{i}-of-00002.array_record" for i in range(2)]


def test_files_of_one_name_in_two_folders_differ(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "all" / "a")
    shutil.copytree(folder, tmp_path / "all" / "b")
    assert len(set(relative_shards(Input(str(tmp_path / "all")).open()))) == 4


def test_ids_are_int64_and_differ():
    ids = {record_id(shard, str(key)) for shard in "ab" for key in range(1000)}
    assert len(ids) == 2000 and all(0 <= number < 2**63 for number in ids)
    assert record_id("a", "1") != record_id("a1", "")


@pytest.mark.parametrize(("count", "sample"), [(10, 3), (3, 10), (1000, 999), (1, 1)])
def test_a_sample_is_spread_over_all(count, sample):
    found = spread(count, sample)
    assert len(set(found.tolist())) == len(found) == min(count, sample)
    assert found[0] == 0 and found[-1] < count
    gaps = np.diff([*found, count])
    assert gaps.max() - gaps.min() <= 1
