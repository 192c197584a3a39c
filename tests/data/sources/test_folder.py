import csv
import json
import os

import pytest
import tensorflow as tf

from simvlm_jax.data.sources import FolderSource, Unreadable
from simvlm_jax.data.testing_records import draw
from simvlm_jax.errors import UserError

RED, BLUE = draw("red", "circle", "left"), draw("blue", "cross", "right")
STRING = tf.io.FixedLenFeature([], tf.string)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("SIMVLM_DATA_DIR", str(tmp_path))
    (tmp_path / "own" / "sub").mkdir(parents=True)
    return tmp_path / "own"


def source(**options):
    return FolderSource("own", {"train": "own"}, **options)


def examples(made):
    return [
        (example["caption"].decode(), example["image/encoded"])
        for example in made.get_dataset("train", shuffle=False).as_numpy_iterator()
    ]


def test_captions_beside_images(folder):
    (folder / "b.PNG").write_bytes(RED)
    (folder / "b.txt").write_bytes("\ufeffein Kreis, grün \r\n".encode())
    (folder / "a.v2.jpg").write_bytes(BLUE)
    (folder / "a.v2.txt").write_text("a cross")
    (folder / "sub" / "c.webp").write_bytes(RED)
    (folder / "sub" / "c.txt").write_text("deep")
    (folder / "README.txt").write_text("no image")
    (folder / "._b.png").write_bytes(b"what macOS leaves")
    assert examples(source()) == [("a cross", BLUE), ("ein Kreis, grün", RED), ("deep", RED)]
    records = source().random_access("train")
    assert [records.name(i)[1] for i in range(3)] == ["a.v2.jpg", "b.PNG", "sub/c.webp"]
    only = source(features={"caption": STRING}).random_access("train")
    assert len(only.read([0])[0]) < len(records.read([0])[0]) - len(BLUE) + 10


def test_links_do_not_lead_out(folder, tmp_path):
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "x.png").write_bytes(RED)
    (tmp_path / "outside" / "x.txt").write_text("secret")
    os.symlink(tmp_path / "outside", folder / "linked")
    os.symlink(tmp_path / "outside" / "x.png", folder / "a.png")
    (folder / "a.txt").write_text("mine")
    (folder / "b.png").write_bytes(RED)
    os.symlink(tmp_path / "outside" / "x.txt", folder / "b.txt")
    records = source().random_access("train")
    assert records.read(range(len(records))) == [
        Unreadable("the image's path leaves the folder"),
        Unreadable("the caption's path leaves the folder"),
    ]


def test_what_is_wrong_with_one_image(folder):
    (folder / "a.png").write_bytes(RED)
    (folder / "a.txt").write_text("good")
    (folder / "b.png").write_bytes(RED)
    (folder / "c.png").write_bytes(RED)
    (folder / "c.txt").write_bytes(b"\xff")
    (folder / "d.png").touch()
    (folder / "d.txt").write_text("d")
    found = source().random_access("train").read(range(4))
    assert [record.cause for record in found[1:]] == [
        "there is no such caption file",
        "the caption is not UTF-8",
        "the image file is empty",
    ]
    assert isinstance(found[0], bytes)


@pytest.mark.parametrize("kind", ["jsonl", "csv"])
def test_metadata_of_hugging_faces_imagefolder(folder, kind):
    (folder / "sub" / "red.png").write_bytes(RED)
    (folder / "blue.png").write_bytes(BLUE)
    rows = [
        {"file_name": "sub/red.png", "text": "red,\nround", "label": 1},
        {"file_name": "blue.png", "text": "blue", "label": 2},
        {"file_name": "../x.png", "text": "out", "label": 3},
    ]
    with open(folder / f"metadata.{kind}", "w", newline="") as file:
        if kind == "jsonl":
            file.writelines(json.dumps(row) + "\n" for row in rows)
        else:
            writer = csv.DictWriter(file, ["file_name", "text", "label"])
            writer.writeheader()
            writer.writerows(rows)
    features = {"image/encoded": STRING, "caption": STRING,
                "label": tf.io.FixedLenFeature([], tf.int64)}  # fmt: skip
    made = source(features=features)
    records = made.random_access("train").read([0, 1, 2])
    for record, row, image in zip(records, rows, [RED, BLUE], strict=False):
        example = made.parse(record, 0)
        assert example["caption"].numpy().decode() == row["text"]
        assert example["label"].numpy() == row["label"]
        assert example["image/encoded"].numpy() == image
    assert records[2] == Unreadable("the image's path leaves the folder")
    renamed = source(fields={"caption": "file_name"}).random_access("train")
    assert b"sub/red.png" in renamed.read([0])[0]


def test_several_folders(folder):
    for place in ("own", "own/sub"):
        (folder.parent / place / "a.png").write_bytes(RED)
        (folder.parent / place / "a.txt").write_text(place)
    made = FolderSource("own", {"train": ["own/sub", "own"]})
    assert [caption for caption, _ in examples(made)] == ["own/sub", "own", "own/sub"]


def test_folders_that_do_not_serve(folder):
    with pytest.raises(UserError, match=r"own has 0 images .*dog\.txt"):
        source().random_access("train")
    (folder / "a.png").write_bytes(RED)
    with pytest.raises(UserError, match=r"own has 1 images .*no caption for any"):
        source().random_access("train")
    with pytest.raises(UserError, match="no folder .*elsewhere"):
        FolderSource("own", {"train": "elsewhere"}).random_access("train")
    with pytest.raises(UserError, match=r"no metadata\.jsonl nor metadata\.csv .*'label'"):
        source(features={"label": STRING}).random_access("train")
