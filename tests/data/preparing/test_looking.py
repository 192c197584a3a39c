import pytest

from made_inputs import bomb, example, image, pair, silent, write
from simvlm_jax.data.preparing import looking
from simvlm_jax.data.preparing.inputs import IMAGE, Input


def describe(folder, rows, image_name=IMAGE, text="", first=3, sample=100, tell=silent):
    records = Input(write(folder, rows)).open()
    return looking.describe(records, image_name, text, first, sample, tell)


def test_the_first_records_field_by_field(tmp_path):
    rows = [pair(0, tags=["a", "b"], score=0.5, length=7), b"\xff\xff"]
    found = describe(tmp_path, rows).splitlines()
    assert found[0] == "2 records in 2 files"
    assert found[1].startswith("record 0: 0 of /") and found[1].endswith(".array_record")
    shown = dict(line.split(None, 1) for line in found[2:7])
    assert shown["caption"] == "9 bytes  'picture 0'"
    assert shown["image/encoded"] == f"{len(image(0))} bytes  PNG 12 x 10 RGB"
    assert shown["tags"] == "bytes [2]  b'a', b'b'"
    assert shown["score"] == "float [1]  0.5" and shown["length"] == "int64 [1]  7"
    assert found[8] == "  unreadable: the record is no tf.train.Example"


def test_statistics_of_a_sample(tmp_path):
    bad = [example(image=bomb(), caption="a"), example(image=image(1), caption="")]
    rows = [example(image=image(n, (20 + n, 10)), caption="x" * n) for n in range(1, 19)]
    told = []
    found = describe(tmp_path, bad + rows, first=0, tell=lambda *t: told.append(t))
    assert "sample of 20 records, 18 of them usable:" in found
    assert "5.00 %  caption is empty" in found and "5.00 %  the image has more than" in found
    assert "caption, characters     0 %: 1  5 %: 2  50 %: 9  95 %: 17  100 %: 18" in found
    assert "image, width            0 %: 21" in found and "PNG 18" in found
    assert told[-1] == ("sampling", 20, 20)


def test_a_sample_comes_from_everywhere(tmp_path):
    rows = [pair(0)] * 50 + [example(image=b"bad", caption="a")] * 50
    found = describe(tmp_path, rows, first=0, sample=10)
    assert "sample of 10 records, 5 of them usable" in found


def test_texts_alone(tmp_path):
    found = describe(tmp_path, [example(text="abc"), example(text="a\0")])
    assert "text, characters" in found and "50.00 %  text holds a NUL byte" in found


@pytest.mark.parametrize("content", ["\x1b[2J evil", b"\xff\xfe\x1b"])
def test_a_terminal_is_safe(tmp_path, content):
    assert "\x1b" not in describe(tmp_path, [pair(0, caption=content)])


def test_nothing(tmp_path):
    assert describe(tmp_path, []) == "0 records in 2 files"
