import json
import os
import threading

import pytest
import tensorflow as tf

from simvlm_jax.data.sources import OfficialSource, OfficialSplit, Unreadable
from simvlm_jax.data.sources.official import FAULT, cached_rows
from simvlm_jax.data.testing_records import draw
from simvlm_jax.errors import UserError

STRING, NUMBER = tf.io.FixedLenFeature([], tf.string), tf.io.FixedLenFeature([], tf.int64)
FIELDS = {"image/encoded": STRING, "text": STRING, "number": NUMBER}
RED = draw("red", "circle", "left")
reads = []


def rows(paths, times=1):
    """Lines `image text`; a line `bad` keeps its place."""
    reads.append(paths)
    for number, line in enumerate(open(paths[0]).read().splitlines() * times):
        image, _, text = line.partition(" ")
        yield {FAULT: "it is bad"} if line == "bad" else {
            "image": image, "text": text, "number": number,
        }  # fmt: skip


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("SIMVLM_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("SIMVLM_CACHE_DIR", str(tmp_path / "cache"))
    (tmp_path / "data" / "photos").mkdir(parents=True)
    (tmp_path / "data" / "photos" / "1.png").write_bytes(RED)
    (tmp_path / "data" / "secret.png").write_bytes(RED)
    lines = ["photos/1.png ä ☃", "bad", "photos/2.png gone", "photos/../secret.png out"]
    lines += ["other/1.png elsewhere", "/etc/hostname x", "photos//etc/hostname y"]
    (tmp_path / "data" / "list.txt").write_text("\n".join(lines))
    reads.clear()
    return tmp_path / "data"


def source(images=("photos",), **options):
    splits = {
        "train": OfficialSplit(("list.txt",), rows, options),
        "twice": OfficialSplit(("list.txt",), rows, {"times": 2}),
    }
    return OfficialSource("things", splits, FIELDS, images)


def test_rows_become_records_that_keep_their_places(folder):
    records = source().random_access("train")
    assert len(records) == 7 and len(source().random_access("twice")) == 14
    found = records.read(range(7))
    example = tf.io.parse_single_example(found[0], FIELDS)
    assert example["text"].numpy().decode() == "ä ☃" and example["image/encoded"] == RED
    causes = [record.cause for record in found[1:]]
    leaves = "the image's path leaves the folder"
    missing = "there is no such image file"
    assert causes == ["it is bad", missing, leaves, leaves, leaves, leaves]
    assert records.name(2) == (f"{folder}/list.txt#train", "2 photos/2.png")


def test_evaluation_keeps_the_texts_of_a_missing_image(folder):
    records = source().in_order("train")
    kept = records.read(range(7))
    assert [isinstance(r, Unreadable) for r in kept] == [False, True, *[False] * 5]
    example = tf.io.parse_single_example(kept[2], FIELDS)
    assert example["image/encoded"] == b"" and example["text"] == b"gone"


def test_files_are_read_once_until_they_change(folder):
    for _ in range(3):
        source().random_access("train")
    assert len(reads) == 1
    source(times=1).random_access("train")  # other options, other rows
    assert len(reads) == 2
    os.utime(folder / "list.txt", ns=(1, 1))
    source().random_access("train")
    assert len(reads) == 3
    (folder / "list.txt").write_text("photos/1.png one\n")
    assert len(source().random_access("train")) == 1


def test_a_packed_file_will_do(folder):
    import gzip

    content = (folder / "list.txt").read_bytes()
    (folder / "list.txt").unlink()
    with pytest.raises(UserError, match="list.txt, which is not there"):
        source().random_access("train")
    (folder / "list.txt.gz").write_bytes(gzip.compress(content))
    assert len(source().random_access("train")) == 7


def test_a_link_to_a_folder_elsewhere_is_a_folder(folder, tmp_path):
    (folder / "photos").rename(tmp_path / "far")
    with pytest.raises(UserError, match="there is no such folder"):
        source().random_access("train")
    (folder / "photos").symlink_to(tmp_path / "far")
    (tmp_path / "far" / "2.png").symlink_to(folder / "secret.png")
    found = source().random_access("train").read([0, 2])
    assert not isinstance(found[0], Unreadable)
    assert found[1].cause == "the image's path leaves the folder"


def test_a_folder_that_is_not_there_is_a_cause(folder):
    (folder / "list.txt").write_text("photos/1.png a\nmore/1.png b\n")
    found = source(("photos", "more")).random_access("train").read([0, 1])
    assert found[1].cause == "there is no folder more of images"


def test_a_refusal_leaves_no_rows_behind(folder):
    def refusing(paths):
        yield {"image": "photos/1.png", "text": "a", "number": 1}
        raise UserError("no")

    split = OfficialSplit(("list.txt",), refusing)
    for _ in range(2):
        with pytest.raises(UserError, match="^no$"):
            cached_rows("things", "train", split)
    assert not list((folder.parent / "cache" / "rows").iterdir())


def test_threads_read_the_same(folder):
    records = source().random_access("train")
    wanted, found = records.read(range(7)), []

    def read():
        found.append(records.read(range(7)))

    threads = [threading.Thread(target=read) for _ in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [wanted] * 4


def test_half_a_character_is_a_cause(folder):
    def surrogate(paths):
        yield {"image": "photos/1.png", "text": json.loads('"\\ud800"'), "number": 1}
        yield {"image": "photos/1.png", "number": 1}

    split = {"train": OfficialSplit(("list.txt",), surrogate)}
    records = OfficialSource("things", split, FIELDS, ["photos"]).random_access("train")
    first, second = records.read([0, 1])
    assert "half a character" in first.cause and second.cause == "the field text is missing"
