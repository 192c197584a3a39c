import io
import json

import pytest
import simvlm_jax.tasks  # noqa: F401  registers the tasks
from PIL import Image, ImageDraw

from benchmark_makers.captions import write_coco, write_nocaps
from benchmark_makers.files import drawing
from simvlm_jax.cli.main import main
from simvlm_jax.data.overlap import Split, describe, find_overlaps, look_of
from simvlm_jax.data.testing_records import make_data
from simvlm_jax.errors import UserError


def picture(quality, pixels=64, turned=False):
    image = Image.new("RGB", (pixels, pixels), "white")
    pen = ImageDraw.Draw(image)
    pen.ellipse((0, 0, pixels // 2, pixels // 3), fill="black")
    pen.rectangle((pixels // 2, pixels // 2, pixels, pixels), fill="blue")
    content = io.BytesIO()
    (image.rotate(90) if turned else image).save(content, "JPEG", quality=quality)
    return content.getvalue()


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = make_data(tmp_path_factory.mktemp("overlap"))
    write_coco(
        folder / "coco_captions",
        [
            (7, "train2014", "train", ["A red circle.", "It's round"], drawing("red", "circle")),
            (8, "train2014", "restval", ["blue"], picture(95)),
            (9, "val2014", "val", ["green"], drawing("green", "circle")),
            (10, "train2014", "train", ["gone"], b""),
            (11, "train2014", "train", ["again"], drawing("red", "circle")),
        ],
    )
    write_nocaps(
        folder / "nocaps",
        "val",
        [
            (0, "in-domain", ["another", " a  RED circle. "], drawing("yellow", "square")),
            (1, "in-domain", ["x"], drawing("red", "circle")),
            (2, "out-domain", ["y"], picture(40, 96)),
            (3, "out-domain", ["blue", "z"], drawing("red", "circle")),
            (4, "out-domain", ["w"], picture(95, turned=True)),
        ],
    )
    return folder


@pytest.fixture
def folder(made, monkeypatch):
    monkeypatch.setenv("SIMVLM_DATA_DIR", str(made))
    monkeypatch.setenv("SIMVLM_CACHE_DIR", str(made / "cache"))
    return made


TRAIN, VAL, OTHER = (Split(*s) for s in [
    ("coco_captions", "train"), ("nocaps", "val"), ("coco_captions", "val"),
])  # fmt: skip


def test_images_and_texts_that_stand_in_both_are_counted_once_an_example(folder):
    (found,) = find_overlaps([TRAIN], [VAL])
    assert found.counts == {"images": 2, "looks": 0, "texts": 2} and found.examples == 5
    assert found.pairs["images"] == [
        ("id 1, image_id 1", "id 0, image_id 7"),
        ("id 3, image_id 3", "id 0, image_id 7"),
    ]
    assert [one for one, _ in found.pairs["texts"]] == ["id 0, image_id 0", "id 3, image_id 3"]
    assert [other for _, other in found.pairs["texts"]] == ["id 0, image_id 7", "id 1, image_id 8"]


def test_another_file_of_a_picture_looks_the_same(folder):
    (found,) = find_overlaps([TRAIN], [VAL], looks=True)
    assert found.counts["looks"] == 3  # the two files that are the same, and the photo
    assert ("id 2, image_id 2", "id 1, image_id 8") in found.pairs["looks"]
    assert look_of(picture(95)) == look_of(picture(40, 96)) != look_of(picture(95, turned=True))
    assert look_of(drawing("white", "circle")) is None and look_of(b"no image") is None


def test_each_pair_of_splits_is_told_apart(folder):
    found = find_overlaps([TRAIN, OTHER], [VAL, OTHER], shown=1)
    assert [(f.training, f.evaluation) for f in found] == [
        (TRAIN, VAL), (TRAIN, OTHER), (OTHER, VAL), (OTHER, OTHER),
    ]  # fmt: skip
    assert [f.counts["images"] for f in found] == [2, 0, 0, 1]
    assert len(found[0].pairs["images"]) == 1
    text = describe(found)
    assert "nocaps:val beside coco_captions:val: nothing of its 5 examples" in text
    assert "images: 2 of 5 examples (40.0 %)" in text


def test_texts_of_tasks_without_images(folder):
    same = Split("documents_prefix_lm", "validation")
    (found,) = find_overlaps([same], [same])
    assert found.counts == {"images": 0, "looks": 0, "texts": 4}
    (found,) = find_overlaps([Split("documents_prefix_lm", "train")], [same])
    assert not any(found.counts.values())


def test_the_verb_prints_findings_and_exits_with_0(folder, capsys):
    assert main(["inspect", "overlap", "--train=coco_captions", "--evaluate=nocaps:val"]) == 0
    assert "id 1, image_id 1 and id 0, image_id 7" in capsys.readouterr().out
    assert main(["inspect", "overlap", "--train=coco_captions", "--evaluate=nocaps"]) == 2
    assert "not TASK:SPLIT" in capsys.readouterr().err
    with pytest.raises(UserError, match="no task 'nothing'"):
        Split.parse("nothing:val")


def test_a_record_that_cannot_be_read_does_not_end_the_search(folder):
    content = json.loads((folder / "coco_captions" / "dataset_coco.json").read_text())
    before = json.dumps(content)
    del content["images"][0]["cocoid"], content["images"][-1]["cocoid"]
    (folder / "coco_captions" / "dataset_coco.json").write_text(json.dumps(content))
    (found,) = find_overlaps([TRAIN], [VAL])
    assert found.counts == {"images": 0, "looks": 0, "texts": 1}
    (folder / "coco_captions" / "dataset_coco.json").write_text(before)
