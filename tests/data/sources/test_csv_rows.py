import csv
import io

import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from simvlm_jax.data.sources import CSVSource, Unreadable, csv_rows, lines
from simvlm_jax.data.testing_records import draw
from simvlm_jax.errors import UserError

STRING = tf.io.FixedLenFeature([], tf.string)
CAPTION = {"caption": STRING}


@pytest.fixture
def data(tmp_path, monkeypatch):
    monkeypatch.setenv("SIMVLM_DATA_DIR", str(tmp_path))
    return tmp_path


def captions(made, name="caption"):
    records = made.random_access("train")
    return [
        record.cause
        if isinstance(record, Unreadable)
        else made.parse(record, 0)[name].numpy().decode()
        for record in records.read(range(len(records)))
    ]


def source(features=CAPTION, **options):
    return CSVSource("table", {"train": "*.csv"}, features, **options)


PIECES = [
    '"',
    '""',
    ",",
    "\t",
    "\n",
    "\r",
    "\r\n",
    "a",
    "é",
    "🙂",
    "\x00",
    " ",
    "\u2028",
    ',"',
    '",',
]


@settings(deadline=None, max_examples=300)
@given(
    content=st.lists(st.sampled_from(PIECES), max_size=40).map("".join),
    block=st.integers(1, 9),
    bom=st.booleans(),
    delimiter=st.sampled_from(",\t"),
    quoting=st.booleans(),
)
def test_rows_are_those_of_the_csv_module(
    tmp_path_factory, content, block, bom, delimiter, quoting
):
    path = tmp_path_factory.getbasetemp() / "rows.csv"
    path.write_bytes(content.encode("utf-8-sig" if bom else "utf-8"))
    options = {"delimiter": delimiter, "quoting": csv.QUOTE_MINIMAL if quoting else csv.QUOTE_NONE}
    with open(path, encoding="utf-8-sig", newline="") as file:
        wanted = [row for row in csv.reader(file, **options) if row]
    form, size = csv_rows.Form(delimiter, quoting), path.stat().st_size
    with pytest.MonkeyPatch.context() as patch, open(path, "rb", buffering=0) as file:
        patch.setattr(csv_rows, "BLOCK", block)
        starts = csv_rows.row_starts(file, form)
        spans = [lines.read_span(file, starts, i, size) for i in range(len(starts))]
    assert [form.values(span) for span in spans] == wanted


@settings(deadline=None, max_examples=60)
@given(
    rows=st.lists(st.tuples(st.text(max_size=9), st.integers(-9, 9)), max_size=9),
    end=st.sampled_from(["\n", "\r\n", "\r"]),
    delimiter=st.sampled_from(",\t;|"),
)
def test_what_the_csv_module_wrote_is_read(tmp_path_factory, rows, end, delimiter):
    path = tmp_path_factory.getbasetemp() / "written.csv"
    with open(path, "w", encoding="utf-8", newline="") as file:
        # With another end of line the writer leaves \r or \n in a value bare.
        quoting = csv.QUOTE_MINIMAL if end == "\r\n" else csv.QUOTE_ALL
        writer = csv.writer(file, delimiter=delimiter, lineterminator=end, quoting=quoting)
        writer.writerows([("caption", "count"), *rows])
    features = {**CAPTION, "count": tf.io.FixedLenFeature([], tf.int64)}
    made = CSVSource("table", {"train": str(path)}, features, delimiter=delimiter)
    examples = list(made.get_dataset("train", shuffle=False).as_numpy_iterator())
    assert [(e["caption"].decode(), e["count"]) for e in examples] == rows


def test_numbers_and_images_and_other_names(data):
    image = draw("red", "circle", "left")
    (data / "red.png").write_bytes(image)
    (data / "a.csv").write_text(
        'score,file,text\n1.5,red.png,"a, b"\n1,../x.png,c\nbad,red.png,d\n'
    )
    features = {
        **CAPTION,
        "image/encoded": STRING,
        "score": tf.io.FixedLenFeature([], tf.float32),
    }
    made = source(features, image_field="file", fields={"caption": "text"})
    records = made.random_access("train").read([0, 1, 2])
    example = made.parse(records[0], 0)
    assert example["image/encoded"].numpy() == image and example["score"].numpy() == 1.5
    assert example["caption"].numpy() == b"a, b"
    assert [record.cause for record in records[1:]] == [
        "the image's path leaves the folder",
        "the column score is not a number",
    ]


def test_a_bad_row_has_a_cause_and_its_neighbours_are_read(data, monkeypatch):
    monkeypatch.setattr(lines, "LONGEST", 150_000)
    monkeypatch.setattr(csv_rows, "LONGEST", 150_000)
    bad = {
        b"a,b": "the row has another number of columns than the header",
        b"\xff": "the row is not UTF-8",
        b"x" * 140_000: "a value of the row is longer than 131072 characters",
        b'"' + b"x\n" * 100_000 + b'"': "the row is longer than 0 MiB",
    }
    (data / "a.csv").write_bytes(b"caption\ngood\n" + b"\ngood\n".join([*bad, b"last"]))
    wanted = [text for cause in bad.values() for text in ("good", cause)]
    assert captions(source()) == [*wanted, "good", "last"]


def test_glue_does_not_quote(data):
    (data / "a.tsv").write_text('caption\tlabel\n"open\t1\nnext\t0\n')
    made = CSVSource("table", {"train": "a.tsv"}, CAPTION, delimiter="\t", quoting=False)
    assert captions(made) == ['"open', "next"]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "has no header"),
        (b"\n\n", "has no header"),
        (b"text\na\n", r"0 columns named 'caption'; it has \['text'\]"),
        (b"caption,caption\na,b\n", "2 columns named 'caption'"),
        (b"\xff\n", "the row is not UTF-8"),
    ],
)
def test_headers_that_do_not_serve(data, content, sentence):
    (data / "a.csv").write_bytes(content)
    with pytest.raises(UserError, match=sentence) as caught:
        source().random_access("train")
    assert "a.csv" in str(caught.value)


@pytest.mark.parametrize("delimiter", ["", ",,", '"', "\n", "é"])
def test_delimiters_that_cannot_be(delimiter):
    with pytest.raises(UserError, match="delimiter"):
        source(delimiter=delimiter)


def test_the_reference_reads_what_we_think():
    """A quote opens a value only at its beginning; the scanner is built on that."""
    assert list(csv.reader(io.StringIO('a"b\nc,"d\ne"f\n', newline=""))) == [
        ['a"b'],
        ["c", "d\nef"],
    ]
