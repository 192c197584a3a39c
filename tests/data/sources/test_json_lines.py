import json
import os

import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from simvlm_jax.data.sources import JSONLinesSource, Unreadable, lines
from simvlm_jax.data.testing_records import draw
from simvlm_jax.errors import UserError

STRING = tf.io.FixedLenFeature([], tf.string)
CAPTION = {"caption": STRING}
PAIR = {"image/encoded": STRING, **CAPTION}
RED = draw("red", "circle", "left")


@pytest.fixture
def data(tmp_path, monkeypatch):
    monkeypatch.setenv("SIMVLM_DATA_DIR", str(tmp_path))
    return tmp_path


def source(features=CAPTION, **options):
    return JSONLinesSource("letters", {"train": "*.jsonl"}, features, **options)


def captions(made):
    """Every record: its caption, or the cause."""
    records = made.random_access("train")
    return [
        record.cause
        if isinstance(record, Unreadable)
        else made.parse(record, 0)["caption"].numpy().decode()
        for record in records.read(range(len(records)))
    ]


@settings(deadline=None, max_examples=60)
@given(
    texts=st.lists(st.text(max_size=12), max_size=12),
    ends=st.lists(st.sampled_from(["\n", "\r\n", "\n\n", "\n \t\r\n"]), min_size=12, max_size=12),
    last=st.booleans(),
    ascii_only=st.booleans(),
)
def test_rows_are_those_of_the_json_module(tmp_path_factory, texts, ends, last, ascii_only):
    path = tmp_path_factory.mktemp("json") / "a.jsonl"
    rows = [json.dumps({"caption": text}, ensure_ascii=ascii_only) for text in texts]
    content = "".join(row + end for row, end in zip(rows, ends, strict=False))
    path.write_bytes((content if last else content.rstrip()).encode())
    with open(path, encoding="utf-8", newline="\n") as file:
        wanted = [json.loads(line)["caption"] for line in file if line.strip()]
    made = JSONLinesSource("letters", {"train": str(path)}, CAPTION)
    assert captions(made) == wanted == texts


@pytest.mark.parametrize(
    ("line", "cause"),
    [
        (b'{"caption": "cut off', "the line is not JSON"),
        (b'{"caption": NaN}', "the line is not JSON"),
        (b"[" * 100_000, "the line is not JSON"),
        (b'["caption"]', "the line is not a JSON object"),
        (b'{"text": "a"}', "the field caption is missing"),
        (b'{"caption": null}', "the field caption is null"),
        (b'{"caption": 3}', "the field caption is not text"),
        (b'{"caption": ["a", "b"]}', "the field caption has not just 1 values"),
        (b'{"caption": "\\ud83d"}', "the field caption has half a character (a lone surrogate)"),
        (b'{"caption": "\xff"}', "the line is not UTF-8"),
        (b'{"caption": "' + b"x" * 200_000 + b'"}', "the line is longer than 0 MiB"),
    ],
)
def test_a_bad_line_has_a_cause_and_its_neighbours_are_read(data, monkeypatch, line, cause):
    monkeypatch.setattr(lines, "LONGEST", 150_000)
    good = b'{"caption": "good"}\n'
    (data / "a.jsonl").write_bytes(good + line + b"\n" + good)
    assert captions(source()) == ["good", cause, "good"]


def test_characters_that_are_data(data):
    rows = ["nul \x00 inside", "\u2028 and \x85", "🙂"]
    (data / "a.jsonl").write_text("".join(json.dumps({"caption": row}) + "\n" for row in rows))
    assert captions(source()) == rows


def test_fields_by_other_names_and_other_types(data):
    row = {"text": "hello", "boxes": [1, 2], "score": 1, "id": 99}
    (data / "a.jsonl").write_text(json.dumps(row))
    features = {
        **CAPTION,
        "boxes": tf.io.FixedLenFeature([2], tf.int64),
        "score": tf.io.FixedLenFeature([], tf.float32),
        "id": tf.io.FixedLenFeature([], tf.int64),
    }
    made = source(features, fields={"caption": "text"})
    (example,) = made.get_dataset("train", shuffle=False).as_numpy_iterator()
    assert example["caption"] == b"hello" and example["boxes"].tolist() == [1, 2]
    assert example["score"] == 1.0 and example["id"] == 99


def test_images_beside_the_file_or_in_a_folder(data):
    (data / "set" / "images").mkdir(parents=True)
    (data / "set" / "images" / "red.png").write_bytes(RED)
    (data / "set" / "a.jsonl").write_text('{"image": "images/red.png", "caption": "red"}\n')
    (data / "b.jsonl").write_text('{"path": "red.png", "caption": "red"}\n')
    beside = JSONLinesSource("letters", {"train": "set/a.jsonl"}, PAIR)
    apart = source(PAIR, images="set/images", image_field="path")
    for made in (beside, apart):
        (example,) = made.get_dataset("train").as_numpy_iterator()
        assert example["image/encoded"] == RED and example["caption"] == b"red"
    with pytest.raises(UserError, match="no folder .*/nowhere"):
        source(PAIR, images="nowhere").random_access("train")


def test_no_path_leaves_the_folder_and_none_is_waited_for(data):
    secret = data / "secret.png"
    secret.write_bytes(RED)
    inside = data / "set"
    (inside / "sub").mkdir(parents=True)
    (inside / "a.png").write_bytes(RED)
    (inside / "empty.png").touch()
    os.symlink(secret, inside / "link.png")
    os.symlink(data, inside / "up")
    os.symlink(inside / "a.png", inside / "inner.png")
    os.mkfifo(inside / "pipe.png")
    with open(inside / "huge.png", "wb") as file:
        file.truncate((256 << 20) + 1)
    leaves, absent = "the image's path leaves the folder", "there is no such image file"
    wanted = {
        str(secret): leaves,
        str(inside / "a.png"): leaves,  # absolute, though within
        "../secret.png": leaves,
        "sub/../../secret.png": leaves,
        "link.png": leaves,
        "up/secret.png": leaves,
        "absent.png": absent,
        "a.png/b": absent,
        "nul\0.png": absent,
        "x" * 300: absent,
        "\ud83d.png": absent,
        "sub": absent,
        "": absent,
        "pipe.png": absent,
        "huge.png": "the image file is larger than 256 MiB",
        "empty.png": "the image file is empty",
        "a.png": "ok",
        "sub/../a.png": "ok",
        "inner.png": "ok",
    }
    rows = [json.dumps({"image": name, "caption": "ok"}) for name in wanted]
    rows += ['{"image": 3, "caption": "ok"}', '{"image": null, "caption": "ok"}']
    (inside / "a.jsonl").write_text("\n".join([*rows, '{"caption": "ok"}']))
    made = JSONLinesSource("letters", {"train": "set/a.jsonl"}, PAIR)
    found, before = captions(made), len(os.listdir("/proc/self/fd"))
    assert captions(made) == found and len(os.listdir("/proc/self/fd")) == before
    assert dict(zip(wanted, found, strict=False)) == wanted
    assert found[-3:] == [
        "the image's path is not text",
        "the field image is null",
        "the field image is missing",
    ]


def test_a_shard_that_changes_or_vanishes_is_found(data):
    for name in ("a", "b", "c"):
        (data / f"{name}.jsonl").write_text('{"caption": "one"}\n' * 2)
    reader = source().random_access("train")
    with open(data / "a.jsonl", "a") as file:
        file.write("\n")
    (data / "b.jsonl").unlink()
    causes = [getattr(record, "cause", None) for record in reader.read(range(6))]
    changed, gone = (
        f"the shard has {what} since it was opened" for what in ("changed", "vanished")
    )
    assert causes == [changed, changed, gone, gone, None, None]
    assert reader.name(3) == (str(data / "b.jsonl"), "1")


def test_what_is_no_file_is_refused_at_opening(data):
    made = JSONLinesSource("letters", {"train": "a.jsonl"}, CAPTION)
    (data / "a.jsonl").mkdir()
    with pytest.raises(UserError, match=r"names the folder .*a\.jsonl; add a pattern"):
        made.random_access("train")
    os.rmdir(data / "a.jsonl")
    os.mkfifo(data / "a.jsonl")
    with pytest.raises(UserError, match=r"a\.jsonl cannot be opened: it is not a file"):
        made.random_access("train")
