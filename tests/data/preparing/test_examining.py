import hashlib

import numpy as np
import pytest

from made_inputs import bomb, example, image, pair, write
from simvlm_jax.data.preparing import examining
from simvlm_jax.data.preparing.examining import FILTERED, KEPT, REFUSED, Examination, Filters
from simvlm_jax.data.preparing.inputs import Input
from simvlm_jax.errors import UserError

HOSTILE = {
    "caption is not UTF-8": example(image=image(0), caption=b"\xff\xfe"),
    "caption holds a NUL byte": example(image=image(0), caption="a\0b"),
    "caption is empty": example(image=image(0), caption="  "),
    "caption is of type int64, not bytes": example(image=image(0), caption=3),
    "there is no field caption": example(image=image(0)),
    "there is no field image/encoded": example(caption="a"),
    "image/encoded is empty": example(image=b"", caption="a"),
    "image/encoded is of type float, not bytes": example(image=0.5, caption="a"),
    "the image has more than 67108864 pixels (a bomb?)": example(image=bomb(), caption="a"),
    "the image cannot be decoded: it is in no known image format": example(
        image=b"GIF9000", caption="a"
    ),
    "the record is no tf.train.Example": b"\xff\xff",
}


def examine(folder, records, filters=None, keep=(), vocabulary="", part=0):
    source = Input(write(folder, records), keep=keep)
    job = Examination(source, filters or Filters(), vocabulary, len(records))
    job.open()
    return examining.unpack(job.run(part))


def test_every_hostile_record_has_its_cause(tmp_path):
    records = [*HOSTILE.values(), pair(1)]
    found, causes = examine(tmp_path, records)
    assert found["outcome"].tolist() == [REFUSED] * len(HOSTILE) + [KEPT]
    assert [causes[number] for number in found["cause"][:-1]] == list(HOSTILE)
    assert found["cause"][-1] == -1


def test_truncated_images_share_one_cause(tmp_path):
    whole = image(3, (64, 64), "JPEG")
    cut = [example(image=whole[:length], caption="a") for length in (900, 1300)]
    found, causes = examine(tmp_path, cut)
    assert found["outcome"].tolist() == [REFUSED, REFUSED] and len(causes) == 1
    assert "cannot be decoded" in causes[0]


def test_what_is_noted_of_a_record(tmp_path):
    content = image(5, (30, 20), "JPEG")
    found, causes = examine(tmp_path, [example(image=content, caption=" grün ")])
    (row,) = found
    assert (row["width"], row["height"], row["bytes"]) == (30, 20, len(content))
    assert (row["characters"], row["tokens"], row["format"]) == (4, -1, b"JPEG")
    digest = hashlib.blake2b(content, digest_size=8).digest()
    assert int(row["image"]).to_bytes(8, "little") == digest
    assert causes == []


def test_width_and_height_are_those_of_the_upright_image(tmp_path):
    import io

    from PIL import Image

    content = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees
    Image.new("RGB", (30, 20)).save(content, "JPEG", exif=exif)
    found, _ = examine(tmp_path, [example(image=content.getvalue(), caption="a")])
    assert (found["width"][0], found["height"][0]) == (20, 30)


@pytest.mark.parametrize(
    ("filters", "size", "caption", "cause"),
    [
        (Filters(min_size=11), (12, 10), "abc", "the shorter side is below 11 pixels"),
        (Filters(min_size=10), (12, 10), "abc", ""),
        (Filters(max_aspect=1.1), (12, 10), "abc", "the aspect is above 1.1"),
        (Filters(max_aspect=1.1), (10, 12), "abc", "the aspect is above 1.1"),
        (Filters(max_aspect=1.2), (12, 10), "abc", ""),
        (Filters(min_caption=4), (12, 10), "abc", "the caption is below 4 characters"),
        (Filters(max_caption=2), (12, 10), "äöü", "the caption is above 2 characters"),
        (Filters(max_caption=3), (12, 10), "äöü", ""),
        (Filters(), (12, 10), "x" * 10_000_000, "the caption is above 10000 characters"),
    ],
)
def test_filters(tmp_path, filters, size, caption, cause):
    found, causes = examine(tmp_path, [example(image=image(1, size), caption=caption)], filters)
    assert found["outcome"][0] == (FILTERED if cause else KEPT)
    assert causes == ([cause] if cause else [])


def test_fields_to_keep_must_be_texts(tmp_path):
    records = [pair(0, source="web"), pair(1), pair(2, source=b"\xff")]
    found, causes = examine(tmp_path, records, keep=("source",))
    assert found["outcome"].tolist() == [KEPT, REFUSED, REFUSED]
    assert causes == ["there is no field source", "source is not UTF-8"]


def test_parts_cover_the_input_once(tmp_path, monkeypatch):
    monkeypatch.setattr(examining, "PART", 4)
    records = [pair(number) for number in range(10)]
    assert Examination(Input("x"), Filters(), "", 10).parts() == [4, 4, 2]
    found, _ = examine(tmp_path, records, part=2)
    assert found["image"].tolist() == [examining.short_hash(image(n)) for n in (8, 9)]


def test_tokens_are_counted_by_the_vocabulary(tmp_path, made_data):
    import sentencepiece

    model = str(made_data / "vocabulary.model")
    found, _ = examine(tmp_path, [pair(0, caption="red circle: left")], vocabulary=model)
    processor = sentencepiece.SentencePieceProcessor(model_file=model)
    assert found["tokens"][0] == len(processor.encode("red circle: left")) > 0


def test_an_input_that_grows_is_refused(tmp_path):
    job = Examination(Input(write(tmp_path, [pair(0)])), Filters(), "", 2)
    with pytest.raises(UserError, match="changes while it is read"):
        job.open()


def test_findings_survive_packing_without_pickle():
    found = np.zeros(3, examining.FINDING)
    found["width"] = [1, 2, 3]
    again, causes = examining.unpack(examining.pack(found, ["größe", "b"]))
    assert (again == found).all() and causes == ["größe", "b"]
    assert examining.unpack(examining.pack(found, []))[1] == []


def test_no_vocabulary(tmp_path):
    (tmp_path / "model").write_bytes(b"no model")
    with pytest.raises(UserError, match="not a SentencePiece model"):
        examining.open_vocabulary(str(tmp_path / "model"))
