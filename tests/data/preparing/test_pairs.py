import dataclasses
import functools
import hashlib
import json

import numpy as np
import pytest
import tensorflow as tf

from made_inputs import bomb, example, image, pair, silent, write
from simvlm_jax.data.preparing import examining, pairs
from simvlm_jax.data.preparing.data_sets import DataSet
from simvlm_jax.data.preparing.examining import Filters
from simvlm_jax.data.preparing.inputs import Input
from simvlm_jax.data.preprocessors import from_record
from simvlm_jax.data.sources import ArrayRecordSource
from simvlm_jax.errors import UserError

EVIL = "<script>alert('x')</script> & \"more\""


def records():
    good = [pair(n % 30, caption=f"picture {n % 10}", source="web") for n in range(40)]
    bad = [
        example(image=image(1), caption=b"\xff"),
        example(image=bomb(), caption="bomb"),
        example(image=b"no image", caption=EVIL),
    ]
    return [*good[:20], *bad, *good[20:], pair(99, caption=EVIL, source=EVIL)]


@pytest.fixture
def small_parts(monkeypatch):
    monkeypatch.setattr(examining, "PART", 8)


@pytest.fixture
def settings(tmp_path, small_parts):
    return pairs.Settings(Input(write(tmp_path / "in", records())), records_per_shard=10)


def prepare(settings, data, name="photos", vocabulary="nowhere", split="train"):
    data_set = DataSet(data, name, split)
    return pairs.prepare_pairs(data_set, settings, data / vocabulary, 1, silent)


def digests(folder):
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.glob("*.array_record")
    }


def read(folder, split):
    found = ArrayRecordSource(str(folder), [split], {}).random_access(split)
    texts = []
    for record in found.read(range(len(found))):
        fields = tf.train.Example.FromString(record).features.feature
        (content,), (caption,) = (fields[n].bytes_list.value for n in ("image/encoded", "caption"))
        texts.append((content, caption.decode()))
    return texts


def test_what_is_kept_can_be_trained_on_unchanged(settings, tmp_path):
    summary, before = prepare(settings, tmp_path)
    assert not before and summary["records"] == {"train": 41}
    kept = [(image(n % 30), f"picture {n % 10}") for n in range(40)] + [(image(99), EVIL)]
    assert read(tmp_path / "photos", "train") == kept
    string = tf.io.FixedLenFeature([], tf.string)
    fields = {"id": tf.io.FixedLenFeature([], tf.int64), "image/encoded": string, "caption": string}
    source = ArrayRecordSource(str(tmp_path / "photos"), ["train"], fields)  # as tasks/forkme.py
    ready = functools.partial(from_record, targets="{caption}", image="image/encoded")
    examples = list(ready(source.get_dataset("train", shuffle=False)).as_numpy_iterator())
    assert [e["targets"].decode() for e in examples] == [caption for _, caption in kept]
    assert len({int(e["id"]) for e in examples}) == 41


def test_the_summary_counts_and_names(settings, tmp_path):
    summary, _ = prepare(settings, tmp_path)
    assert summary["outcomes"] == {"kept": 41, "refused": 3, "filtered": 0, "duplicate": 0}
    assert sorted(summary["causes"].values()) == [1, 1, 1]
    assert summary["formats"] == {"PNG": 41}
    assert summary["frequent_captions"][:2] == [["picture 0", 4], ["picture 1", 4]]
    found = summary["distributions"]
    assert "tokens" not in found and sum(found["characters"]["counts"]) == 41
    assert found["width"]["percentiles"]["50"] == 12 and found["aspect"]["most"] == 1.2
    lines = (tmp_path / "photos" / "rejected-train.jsonl").read_text().splitlines()
    refused = [json.loads(line) for line in lines]
    assert [(r["shard"].rpartition("/")[2], r["key"]) for r in refused] == [
        ("part-00000-of-00002.array_record", "20"),
        ("part-00000-of-00002.array_record", "21"),
        ("part-00001-of-00002.array_record", "0"),
    ]
    assert "not UTF-8" in refused[0]["cause"] and "bomb" in refused[1]["cause"]
    shards = {n: f for n, f in summary["files"].items()}
    assert {n: f["sha256"] for n, f in shards.items()} == digests(tmp_path / "photos")
    assert [facts["records"] for facts in shards.values()] == [8, 8, 8, 8, 9]


def test_the_report_is_safe_and_complete(settings, tmp_path):
    prepare(settings, tmp_path)
    page = (tmp_path / "photos" / "report-train.html").read_text()
    assert "<script" not in page and "&lt;script&gt;" in page
    assert page.count("data:image/jpeg;base64,") >= 41
    assert page.count('<svg class="chart"') == 5
    for words in ("caption is not UTF-8", "a bomb?", "no known image format", "picture 0"):
        assert words in page


def test_a_second_run_verifies_and_touches_nothing(settings, tmp_path):
    summary, _ = prepare(settings, tmp_path)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "photos").rglob("*")}
    again, was_there = prepare(settings, tmp_path)
    assert was_there and again == summary
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "photos").rglob("*")}


def test_damage_is_mended_to_the_same_bytes(settings, tmp_path, capsys):
    prepare(settings, tmp_path)
    before = digests(tmp_path / "photos")
    victim = tmp_path / "photos" / "train-00002-of-00005.array_record"
    victim.write_bytes(b"damaged")
    _, was_there = prepare(settings, tmp_path)
    assert not was_there and digests(tmp_path / "photos") == before
    assert "Damaged: train-00002-of-00005" in capsys.readouterr().err


@pytest.mark.parametrize("where", ["examining", "writing train", "report"])
def test_an_interruption_leaves_what_is_done(settings, tmp_path, monkeypatch, where):
    prepare(settings, tmp_path, "whole")

    def interrupt(what, done, total, before=0):
        if what == where and done > before:
            raise KeyboardInterrupt

    data_set = DataSet(tmp_path, "photos", "train")
    with monkeypatch.context() as patch:
        if where == "report":
            patch.setattr(pairs.report, "pairs_page", lambda *_: interrupt("report", 1, 1))
        with pytest.raises(KeyboardInterrupt):
            pairs.prepare_pairs(data_set, settings, tmp_path / "none", 1, interrupt)
    assert not data_set.summary_path.exists() and not digests(data_set.folder)
    told = []
    pairs.prepare_pairs(data_set, settings, tmp_path / "none", 1, lambda *t: told.append(t))
    assert told[0][3] > 0  # records that were examined before
    assert digests(tmp_path / "photos") == digests(tmp_path / "whole")
    assert not list(data_set.folder.glob(".*"))


def test_other_settings_are_refused_and_another_split_is_not(settings, tmp_path):
    prepare(settings, tmp_path)
    with pytest.raises(UserError, match="prepared with duplicates=keep, not duplicates=pair"):
        prepare(dataclasses.replace(settings, duplicates="pair"), tmp_path)
    prepare(settings, tmp_path, split="test")
    assert len(read(tmp_path / "photos", "test")) == 41


def test_validation_holds_other_images(settings, tmp_path):
    settings = dataclasses.replace(settings, validation_share=0.3, seed=5)
    summary, _ = prepare(settings, tmp_path)
    train, validation = (read(tmp_path / "photos", s) for s in ("train", "validation"))
    assert len(train) + len(validation) == 41 and validation
    assert not {i for i, _ in train} & {i for i, _ in validation}
    assert summary["records"] == {"train": len(train), "validation": len(validation)}


@pytest.mark.parametrize(("duplicates", "kept"), [("image", 31), ("pair", 31), ("keep", 41)])
def test_duplicates(settings, tmp_path, duplicates, kept):
    summary, _ = prepare(dataclasses.replace(settings, duplicates=duplicates), tmp_path)
    assert summary["records"]["train"] == kept == len(read(tmp_path / "photos", "train"))


def test_tokens_are_in_the_report_if_there_is_a_vocabulary(settings, tmp_path, made_data):
    model = made_data / "vocabulary.model"
    (tmp_path / "vocabulary.model").write_bytes(model.read_bytes())
    summary, _ = prepare(settings, tmp_path, vocabulary="vocabulary.model")
    assert summary["distributions"]["tokens"]["least"] > 1


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"shards": 2}, "Give --shards or --records_per_shard"),
        ({"validation_share": 1.5}, "--validation_share must be in"),
        ({"filters": Filters(min_caption=5, max_caption=4)}, "no caption could be kept"),
        ({"filters": Filters(max_aspect=0.5)}, "--max_aspect must be at least 1"),
        ({"filters": Filters(min_size=1000)}, r"None of the 44 records .*41: the shorter side"),
        ({"validation_share": 1e-9}, "split validation"),
    ],
)
def test_settings_that_keep_nothing(settings, tmp_path, change, words):
    with pytest.raises(UserError, match=words):
        prepare(dataclasses.replace(settings, **change), tmp_path)
    assert not digests(tmp_path / "photos")


@pytest.mark.parametrize(
    ("rows", "source", "words"),
    [
        ([], {}, "There is no record at --input="),
        ([pair(0)], {"text_field": "title"}, "no field 'title'; they have caption, image/encoded"),
        ([pair(0)], {"image_field": "jpeg"}, "no field 'jpeg'.*--image_field"),
        ([pair(0)], {"keep": ("tag",)}, "no field 'tag'.*--keep"),
        ([pair(0)], {"keep": ("id",)}, "--keep=id names a field that every record has"),
        ([b"\xff\xff"], {}, "cannot be used: the record is no tf.train.Example"),
        ([b"\xff\xff"] * 3, {"keep": ("tag",)}, "--image_field or --caption_field or --keep"),
        ([example(image=image(0), caption=3)], {}, "caption is of type int64"),
    ],
)
def test_inputs_without_pairs(tmp_path, rows, source, words):
    path = write(tmp_path / "in", rows)
    with pytest.raises(UserError, match=words):
        prepare(pairs.Settings(Input(path, **source)), tmp_path)


def test_an_input_that_changed_is_refused(settings, tmp_path):
    prepare(settings, tmp_path)
    write(tmp_path / "in", records()[:-1])
    with pytest.raises(UserError, match="before its input changed"):
        prepare(settings, tmp_path)


def test_refused_records_that_are_named_are_bounded(settings, tmp_path, monkeypatch):
    monkeypatch.setattr(pairs, "MOST_REFUSED_NAMED", 2)
    summary, _ = prepare(settings, tmp_path)
    text = (tmp_path / "photos" / "rejected-train.jsonl").read_text()
    assert text.count("\n") == 2 and summary["outcomes"]["refused"] == 3


def test_aspects_are_those_of_the_kept(settings, tmp_path):
    sizes = [(20, 10), (8, 16)]
    rows = [example(image=image(n, size), caption="a") for n, size in enumerate(sizes)]
    settings = pairs.Settings(Input(write(tmp_path / "two", rows)))
    found = prepare(settings, tmp_path)[0]["distributions"]["aspect"]
    assert np.isclose([found["least"], found["most"], found["mean"]], [0.5, 2, 1.25]).all()
