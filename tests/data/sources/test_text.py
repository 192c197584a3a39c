import gzip
import json

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from simvlm_jax.data.sources import TextSource, Unreadable, lines, text
from simvlm_jax.errors import UserError

PACKERS = {"": bytes, ".gz": gzip.compress, ".zst": zstandard.compress}


@pytest.fixture
def data(tmp_path, monkeypatch):
    monkeypatch.setenv("SIMVLM_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("SIMVLM_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path


def texts(made):
    records = made.random_access("train")
    return [
        record.cause
        if isinstance(record, Unreadable)
        else made.parse(record, 0)["text"].numpy().decode()
        for record in records.read(range(len(records)))
    ]


@pytest.mark.parametrize("packing", PACKERS)
def test_lines_paragraphs_and_json(data, packing):
    content = "one\r\n\n  \ntwo ü\nthree\r\nfour \n\n".encode()
    (data / f"a.txt{packing}").write_bytes(PACKERS[packing](content))
    rows = "".join(json.dumps({"body": body, "url": "x"}) + "\n" for body in ("a\nb", "ü"))
    (data / f"a.json{packing}").write_bytes(PACKERS[packing](rows.encode()))
    splits = {"train": f"a.txt{packing}"}
    assert texts(TextSource("words", splits)) == ["one", "two ü", "three", "four "]
    assert texts(TextSource("words", splits, separator="blank")) == ["one", "two ü\nthree\nfour"]
    made = TextSource("words", {"train": f"a.json{packing}"}, field="body")
    assert texts(made) == ["a\nb", "ü"]
    (first, _) = made.get_dataset("train", shuffle=False).as_numpy_iterator()
    assert first == {"id": 0, "text": b"a\nb"}
    assert made.random_access("train").name(1) == (str(data / f"a.json{packing}"), "1")


@settings(deadline=None)
@given(
    content=st.lists(
        st.sampled_from(["\n", "\n\n", "\r\n", "\r", " ", "a", "ü", "\x00", "\u2029", "🙂"]),
        max_size=30,
    ).map("".join)
)
def test_documents_are_those_of_reading_in_order(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "documents.txt"
    path.write_bytes(content.encode())
    blanks = lines.BLANKS.decode()
    with open(path, encoding="utf-8", newline="\n") as file:
        read = [line.removesuffix("\n").removesuffix("\r") for line in file]
    wanted_lines = [line for line in read if line.strip(blanks)]
    paragraphs, current = [], []
    for line in [*read, ""]:
        if line.strip(blanks):
            current.append(line)
        elif current:
            paragraphs.append("\n".join(current).rstrip(blanks))
            current = []
    splits = {"train": str(path)}
    assert texts(TextSource("words", splits)) == wanted_lines
    assert texts(TextSource("words", splits, separator="blank")) == paragraphs


def test_bad_documents_have_causes(data, monkeypatch):
    for module in (lines, text):
        monkeypatch.setattr(module, "LONGEST", 20)
    (data / "a.txt").write_bytes(b"good\n\n\xff\n\n" + b"x" * 30 + b"\n\nlast" + b"\n" * 50)
    splits = {"train": "a.txt"}
    causes = ["the text is not UTF-8", "the line is longer than 0 MiB"]
    assert texts(TextSource("words", splits)) == ["good", *causes, "last"]
    causes[1] = "the document is longer than 0 MiB"
    assert texts(TextSource("words", splits, separator="blank")) == ["good", *causes, "last"]


def test_packed_files_that_do_not_serve(data):
    (data / "a.gz").write_bytes(gzip.compress(b"text\n" * 100))
    with pytest.raises(UserError, match=r"a\.gz .* more than 400; .*bomb"):
        texts(TextSource("words", {"train": "a.gz"}, largest_unpacked=400))
    (data / "a.gz").write_bytes(gzip.compress(b"text\n" * 100)[:-3])
    with pytest.raises(UserError, match=r"a\.gz is damaged or truncated"):
        texts(TextSource("words", {"train": "a.gz"}))


def test_an_unpacked_file_outlives_the_packed_one(data):
    (data / "a.gz").write_bytes(gzip.compress(b"text\n"))
    reader = TextSource("words", {"train": "a.gz"}).random_access("train")
    (data / "a.gz").unlink()
    assert b"text" in reader.read([0])[0]


def test_separators():
    with pytest.raises(UserError, match="'tab'; use one of line, blank"):
        TextSource("words", {"train": "a"}, separator="tab")
