"""Shards from strangers: each record is right or Unreadable, or the shard is refused by name."""

import io
import json
import os
import struct
import tarfile

import google_crc32c
import pyarrow
import pytest
import tensorflow as tf
from hypothesis import example, given
from hypothesis import strategies as st
from pyarrow import parquet

from fuzz.hostile import FEW, MIB, SOME, at_most, bytes_like
from simvlm_jax.data.records import encode_example, write_shards
from simvlm_jax.data.sources import Unreadable, WebDatasetSource
from simvlm_jax.data.sources.array_record import ArrayRecords
from simvlm_jax.data.sources.csv_rows import CSVSource
from simvlm_jax.data.sources.index import ENTRIES_START, ENTRY, find_index
from simvlm_jax.data.sources.json_lines import JSONLinesSource
from simvlm_jax.data.sources.parquet import ParquetSource
from simvlm_jax.data.sources.tar_samples import LONGEST_NAME, scan_samples
from simvlm_jax.data.sources.text import TextSource
from simvlm_jax.data.sources.tfrecord import TFRecordSource
from simvlm_jax.errors import UserError

TEXT, WHOLE = tf.io.FixedLenFeature([], tf.string), tf.io.FixedLenFeature([], tf.int64)
MANY = tf.io.FixedLenSequenceFeature([], tf.int64, allow_missing=True)
PAIR = {"image/encoded": TEXT, "caption": TEXT}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("hostile")


def read(source, path, content, most_mib=150):
    """Reads all of a shard twice: in order, and what is named; gives what it holds."""
    path.write_bytes(content)
    for index in path.parent.glob(f"{path.name}.index"):
        index.unlink()
    with at_most(most_mib):
        try:
            records = source.open([str(path)])
            assert 0 <= len(records) <= len(content)
            found = records.read(range(len(records)))
            names = [records.name(index) for index in range(min(3, len(records)))]
        except UserError as error:
            assert str(error).startswith(
                ("The shard", "There is", "The index")
            ) or path.name in str(error)
            return []
    assert all(isinstance(part, str) for name in names for part in name)
    for record in found:
        if isinstance(record, Unreadable):
            assert record.cause and not record.cause.endswith(".")
        else:
            source.parse(tf.constant(record), 0)  # TensorFlow takes what we let through
    return found


def archive(*members, form=tarfile.PAX_FORMAT):
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w", format=form) as made:
        for name, content in members:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            made.addfile(member, io.BytesIO(content))
    return target.getvalue()


def header(kind, size=0, name="x", link=""):
    member = tarfile.TarInfo(name)
    member.type, member.size, member.linkname = kind, size, link
    return member.tobuf(tarfile.GNU_FORMAT)


END = bytes(1024)
SAMPLES = (
    archive(("0.jpg", b"pixels"), ("0.txt", b"a dog"), ("0.json", b'{"n": 3}'), ("1.jpg", b"")),
    archive(("d/" + "n" * 120 + ".jpg", b"p"), ("a.txt", b"b"), form=tarfile.GNU_FORMAT),
)
UPON = header(tarfile.XHDTYPE) * 1500 + header(b"0", 0, "0.jpg") + END


@SOME
@given(bytes_like(*SAMPLES))
@example(UPON)  # each header is read within the one before: Python's stack was too short
@example(header(tarfile.GNUTYPE_LONGNAME) * 1500 + header(b"0", 0, "0.jpg") + END)
@example(header(b"0", 1 << 33, "0.jpg") + END)
@example(header(tarfile.GNUTYPE_LONGNAME, LONGEST_NAME * 2) + END)
def test_tar(folder, content):
    source = WebDatasetSource("p", {"train": "x"}, {**PAIR, "n": WHOLE}, json=["n"])
    read(source, folder / "a.tar", content)


@pytest.mark.parametrize("name", ["../0.jpg", "/etc/0.jpg", "a/../../0.jpg"])
def test_no_member_leaves_its_folder(folder, name):
    """Nothing is ever written, and such a sample is not read either."""
    before = sorted(os.listdir(folder.parent))
    source = WebDatasetSource("p", {"train": "x"}, PAIR)
    (found,) = read(source, folder / "a.tar", archive((name, b"p"), (name[:-3] + "txt", b"t")))
    assert found.cause == "a member's name leaves the archive"
    assert sorted(os.listdir(folder.parent)) == before


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE])
def test_no_link_is_followed(folder, kind):
    content = header(kind, 0, "0.jpg", "/etc/passwd") + SAMPLES[0]
    found = read(WebDatasetSource("p", {"train": "x"}, PAIR), folder / "a.tar", content)
    assert found[0].cause == "a member is a link"


def test_a_sample_of_very_many_members_is_bounded(folder):
    content = header(b"0", 0, "0.jpg") + header(tarfile.DIRTYPE, 0, "d") * 10_500 + END
    (found,) = read(WebDatasetSource("p", {"train": "x"}, PAIR), folder / "a.tar", content)
    assert found.cause == "the sample has more than 10000 members"


def test_a_json_member_of_megabytes_is_not_parsed(folder):
    content = archive(("0.jpg", b"p"), ("0.json", b"[" + b"[]," * (6 << 20) + b"0]"))
    source = WebDatasetSource("p", {"train": "x"}, {"n": WHOLE}, json=["n"])
    (found,) = read(source, folder / "a.tar", content)
    assert found.cause == "the .json is longer than 16 MiB"


def frame(content, length=None, right=True):
    def masked(data):
        checksum = google_crc32c.value(data)
        return struct.pack("<I", (((checksum >> 15) | (checksum << 17)) + 0xA282EAD8) & 0xFFFFFFFF)

    head = struct.pack("<Q", len(content) if length is None else length)
    return head + masked(head) + content + (masked(content) if right else bytes(4))


EXAMPLE = encode_example({"image/encoded": b"pixels", "caption": "a dog"})


@SOME
@given(bytes_like(frame(EXAMPLE) * 3, frame(EXAMPLE) + frame(b"") + frame(EXAMPLE[:9])))
@example(frame(EXAMPLE, length=1 << 62))
@example(frame(EXAMPLE, length=(1 << 64) - 1))
@example(frame(b"\x0a" + b"\xff" * 9 + b"\x01"))
def test_tfrecord(folder, content):
    read(TFRecordSource("p", {"train": "x"}, PAIR), folder / "a.tfrecord", content)


@FEW
@given(st.data())
def test_an_index_from_elsewhere(folder, data):
    """Whatever it says, no other bytes come out than those of whole records."""
    path = folder / "indexed.tfrecord"
    index = path.with_name(f"{path.name}.index")
    index.unlink(missing_ok=True)
    path.write_bytes(frame(EXAMPLE) * 3)
    source = TFRecordSource("p", {"train": "x"}, PAIR)
    source.open([str(path)])
    index.write_bytes(data.draw(bytes_like(index.read_bytes())))
    with at_most(60):
        try:
            records = source.open([str(path)])
            found = records.read(range(min(9, len(records))))
        except UserError as error:
            assert index.name in str(error)
        else:
            assert all(isinstance(record, Unreadable) or record == EXAMPLE for record in found)
    index.unlink()


def index_of(kind=b"tfrecord", records=0, size=0, entries=b""):
    head = struct.pack("<8sI8sQQ", b"SimVLMix", 1, kind, records, size)
    return head + struct.pack("<I", google_crc32c.value(head)) + entries


@pytest.mark.parametrize(
    "index",
    [
        index_of(b"\xff\xfe"),
        index_of(records=(1 << 64) - 1),
        index_of(records=1 << 40, size=len(frame(EXAMPLE))),
    ],
)
def test_a_well_made_index_that_lies_is_refused(folder, index):
    path = folder / "lying.tfrecord"
    path.write_bytes(frame(EXAMPLE))
    path.with_name(f"{path.name}.index").write_bytes(index)
    with pytest.raises(UserError, match="lying.tfrecord.index"):
        find_index(str(path), "tfrecord")


def test_entries_that_lead_elsewhere_give_no_bytes(folder):
    path = folder / "elsewhere.tfrecord"
    path.write_bytes(frame(EXAMPLE))
    size = path.stat().st_size
    entries = ENTRY.pack((1 << 64) - 1, 9, 0) + ENTRY.pack(0, (1 << 32) - 1, 0)
    path.with_name(f"{path.name}.index").write_bytes(index_of(b"tfrecord", 2, size, entries))
    with at_most(20):
        found = TFRecordSource("p", {"train": "x"}, PAIR).open([str(path)]).read([0, 1])
    assert all(isinstance(record, Unreadable) for record in found)


def test_an_index_larger_than_its_shard_is_not_fetched(tmp_path, monkeypatch):
    import fsspec

    monkeypatch.setenv("SIMVLM_CACHE_DIR", str(tmp_path))
    memory, content = fsspec.filesystem("memory"), frame(EXAMPLE)
    memory.pipe("/bomb/a.tfrecord", content)
    memory.pipe("/bomb/a.tfrecord.index", index_of(entries=bytes(len(content) + 1)))
    with pytest.raises(UserError, match="more than any index of a shard of"):
        find_index("memory://bomb/a.tfrecord", "tfrecord")
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
    assert ENTRIES_START + len(content) < len(memory.cat("/bomb/a.tfrecord.index"))


@pytest.fixture(scope="module")
def array_records(folder):
    rows = [bytes([number]) * 40 for number in range(6)]
    return rows, write_shards(folder, "whole", rows, 1)[0].read_bytes()


@FEW
@given(st.data())
def test_array_record(folder, array_records, data):
    rows, whole = array_records
    path = folder / "a.array_record"
    path.write_bytes(data.draw(bytes_like(whole)))
    with at_most(60):
        try:
            records = ArrayRecords([str(path)])
        except UserError as error:
            assert path.name in str(error)
            return
        assert len(records) <= 1000
        found = records.read(range(len(records)))
    assert all(isinstance(record, Unreadable) or record in rows for record in found)


def table(**options):
    content = io.BytesIO()
    rows = {
        "image": [{"bytes": bytes([n]) * 30, "path": "a"} for n in range(12)],
        "caption": [f"picture {n}" for n in range(12)],
        "n": list(range(12)),
        "l": [[n] * (n % 3) for n in range(12)],
    }
    parquet.write_table(pyarrow.table(rows), content, **options)
    return content.getvalue()


TABLES = table(row_group_size=5), table(use_dictionary=False, row_group_size=12)


@FEW
@given(bytes_like(*TABLES))
def test_parquet(folder, content):
    features = {**PAIR, "n": WHOLE, "l": MANY}
    source = ParquetSource("p", {"train": "x"}, features, {"image/encoded": "image"})
    found = read(source, folder / "a.parquet", content)
    if found:
        path = str(folder / "a.parquet")
        assert [type(row) for row in source.rows(path)] == [type(row) for row in found]


def test_more_rows_than_values_are_refused(folder):
    """Else a row group of nothing would give Unreadable records without end."""
    whole = table(row_group_size=12, compression="none", write_statistics=False)
    footer_start = len(whole) - 8 - int.from_bytes(whole[-8:-4], "little")
    footer = whole[footer_start:-8]
    place = footer.rindex(b"\x16\x18")  # zigzag 12: the row group's own number of rows
    grown = footer[:place] + b"\x16\x80\x80\x80\x80\x80\x80\x01" + footer[place + 2 :]
    content = whole[:footer_start] + grown + struct.pack("<I", len(grown)) + b"PAR1"
    (folder / "rows.parquet").write_bytes(content)
    claimed = parquet.read_metadata(folder / "rows.parquet").row_group(0).num_rows
    assert claimed == 1 << 41
    source = ParquetSource("p", {"train": "x"}, {"caption": TEXT})
    with pytest.raises(UserError, match="rows.parquet is not a readable Parquet file"):
        next(source.rows(str(folder / "rows.parquet")))


def test_a_footer_at_which_the_library_ends_the_process_is_refused(folder):
    """Numbers of levels that contradict the schema; asked for its sizes, pyarrow aborts."""
    whole = table(row_group_size=12)
    content = whole.replace(b"\x19\x06\x19\x36", b"\x19\x30\x19\x36", 1)
    assert content != whole and len(content) == len(whole)
    source = ParquetSource("p", {"train": "x"}, {"image/encoded": TEXT}, {"image/encoded": "image"})
    (folder / "levels.parquet").write_bytes(content)
    with pytest.raises(
        UserError, match="levels.parquet is not a readable .*histogram size mismatch"
    ):
        source.open([str(folder / "levels.parquet")])


LINES = b'{"caption": "a dog", "n": 3}\n\n{"caption": "b", "n": [1]}\r\n{"n": 1e999}\n'
DEEP = b'{"n": ' + b"[" * 100_000 + b"\n"


@SOME
@given(bytes_like(LINES, b"\xef\xbb\xbf" + LINES))
@example(DEEP)
@example(b'{"caption": "\\ud800", "n": 1}\n{"caption": "a", "n": NaN}\n')
@example(b'{"caption": "a", "n": ' + b"9" * 5000 + b"}\n")
@example(b'{"caption": "a\0", "n": -1}' + bytes(100))
def test_json_lines(folder, content):
    read(
        JSONLinesSource("p", {"train": "x"}, {"caption": TEXT, "n": WHOLE}),
        folder / "a.jsonl",
        content,
    )


ROWS = b'caption,n\na dog,3\n"two\nlines",4\nmore,5,6\n'


@SOME
@given(bytes_like(ROWS))
@example(b'caption,n\n"' + b"x" * (1 << 18) + b'",1\nb,2\n')
@example(b"caption,n\n" + b'"' * 999)
@example(b"caption,n\n\0,1\n\xff,2\na," + b"9" * 30)
def test_csv(folder, content):
    read(CSVSource("p", {"train": "x"}, {"caption": TEXT, "n": WHOLE}), folder / "a.csv", content)


@FEW
@given(bytes_like(b"a dog\n\na cat\r\nand more\n"), st.sampled_from(["line", "blank"]))
@example(b"\xff\n\0\n" + b"x" * (17 * MIB), "line")
def test_text(folder, content, separator):
    read(TextSource("p", {"train": "x"}, separator=separator), folder / "a.txt", content)


@FEW
@given(
    st.recursive(st.none() | st.text(max_size=4), lambda v: st.lists(v, max_size=2), max_leaves=4)
)
@example("\0")
@example("..")
@example("a" * 5000)
@example("/dev/zero")
@example("~/.ssh/id_rsa")
def test_images_that_rows_name(folder, name):
    (folder / "here").mkdir(exist_ok=True)
    source = JSONLinesSource(
        "p", {"train": "x"}, {"image/encoded": TEXT}, images=str(folder / "here")
    )
    line = json.dumps({"image": name}).encode() + b"\n"
    assert all(isinstance(record, Unreadable) for record in read(source, folder / "i.jsonl", line))


def test_what_is_scanned_is_never_held(tmp_path):
    """A member of a gigabyte passes through in pieces."""
    with (tmp_path / "a.tar").open("wb") as file:
        file.write(header(b"0", 1 << 30, "0.jpg"))
        file.truncate(512 + (1 << 30) + 1024)  # takes no room on the disk
    with (tmp_path / "a.tar").open("rb") as file, at_most(30):
        assert [length for _, length, _ in scan_samples(file, "a.tar")] == [512 + (1 << 30)]
