import gzip
import io
import lzma
import re
import tarfile

import google_crc32c
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from webdataset.tariterators import base_plus_ext

from simvlm_jax.data.sources.tar_samples import LONGEST_NAME, key_and_suffix, scan_samples
from simvlm_jax.errors import UserError


def archive(members, form=tarfile.PAX_FORMAT, **fields):
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w", format=form, **fields) as made:
        for name, content in members:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            made.addfile(member, io.BytesIO(content))
    return target.getvalue()


def scan(data):
    return list(scan_samples(io.BytesIO(data), "a.tar"))


SAMPLES = [(f"{n}.{end}", bytes([n]) * (n * 300)) for n in range(4) for end in ("jpg", "txt")]
DATA = archive(SAMPLES)


@settings(deadline=None, max_examples=40)
@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 1500), st.integers(1, 300)), max_size=12),
    st.sampled_from([tarfile.PAX_FORMAT, tarfile.GNU_FORMAT]),
)
def test_spans_are_those_of_the_members(wanted, form):
    members = [
        (f"{'n' * width}{number}.{slot}", bytes([slot]) * size)
        for slot, (number, size, width) in enumerate(wanted)
    ]
    data = archive(members, form)
    runs = []  # what tarfile itself says of members whose names are alike
    for member in tarfile.open(fileobj=io.BytesIO(data)) if members else []:
        key = member.name.split(".")[0]
        end = member.offset_data + -(-member.size // 512) * 512
        if runs and runs[-1][0] == key:
            runs[-1][2] = end
        else:
            runs.append([key, member.offset, end])
    assert scan(data) == [
        (start, end - start, google_crc32c.value(data[start:end])) for _, start, end in runs
    ]


@given(st.text(st.sampled_from("aB./_"), min_size=1, max_size=9))
def test_names_are_split_as_the_library_does(name):
    wanted = base_plus_ext(name)
    found = key_and_suffix(tarfile.TarInfo(name))
    # To it, `a/.b` is the `b` of `a/`.
    assume("/." not in name and not re.match("__[^/]*__($|/)", name))
    assert found == ((wanted[0], wanted[1].lower()) if wanted[0] else None)


def test_hidden_files_do_not_part_a_sample():
    members = [("a/0.jpg", b"a"), ("a/._0.jpg", b""), ("a/0.txt", b"b"), (".0.jpg", b"")]
    assert len(scan(archive(members))) == 1


def test_a_long_name_takes_no_long_time():
    name = "a/" * (LONGEST_NAME // 2 - 600)
    assert scan(archive([(name + "b", b""), (name + "b.jpg", b"")]))[0][0] > LONGEST_NAME - 2000


def test_an_archive_of_nothing():
    assert scan(archive([])) == []


def test_global_headers_are_passed():
    data = archive(SAMPLES, pax_headers={"comment": "who wrote this"})
    assert len(scan(data)) == 4


@pytest.mark.parametrize("end", [0, 512, 700, 1024 + 512, 2000])
def test_a_cut_archive_is_refused(end):
    end_of_members = sum(scan(DATA)[-1][:2])
    for length in (end, end_of_members - 1, end_of_members - 512, end_of_members):
        with pytest.raises(UserError, match="a.tar ends at or within the member at byte"):
            scan(DATA[:length])


def test_a_cut_member_is_named_by_its_beginning():
    with pytest.raises(UserError, match="at or within the member at byte 1024,"):
        scan(DATA[:1700])  # the 300 bytes of 1.jpg lie from 1536 on


def test_a_link_that_names_a_size_has_no_bytes():
    link = header(tarfile.SYMTYPE, 700, "link.txt")
    assert [entry[:2] for entry in scan(link + DATA)][:2] == [(0, 512), (512, 1024)]


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (gzip.compress(DATA), "compressed with gzip"),
        (lzma.compress(DATA + bytes(range(256)) * 20), "compressed with xz"),
        (b"text" * 300, "is no tar archive"),
        (DATA + b"more", "more after its end"),
        (DATA + DATA, "two archives"),
        (DATA[:2048] + b"\1" + DATA[2049:], "damaged at byte 2048"),
    ],
)
def test_what_is_no_whole_archive_is_refused(data, sentence):
    assert scan(DATA)[1][0] == 1024 and DATA[2048:2053] == b"1.txt"
    with pytest.raises(UserError, match=f"a.tar .*{sentence}"):
        scan(data)


def header(kind, size, name="x"):
    member = tarfile.TarInfo(name)
    member.type, member.size = kind, size
    return member.tobuf(tarfile.GNU_FORMAT)


@pytest.mark.parametrize(
    "data",
    [
        header(tarfile.XHDTYPE, 1 << 50),
        header(tarfile.GNUTYPE_LONGNAME, LONGEST_NAME) + bytes(LONGEST_NAME),
        header(tarfile.XHDTYPE, -512) + bytes(1024),
        header(tarfile.XHDTYPE, 12) + b"12 size=-99\n".ljust(512, b"\0") + header(b"0", 0),
        header(tarfile.GNUTYPE_LONGNAME, 3) + b"ab\0".ljust(512, b"\0") + bytes(1024),
        header(b"0", -512, "0.txt") + bytes(1024),
    ],
)
def test_hostile_headers_are_refused(data):
    good = DATA[: scan(DATA)[0][1]]
    with pytest.raises(UserError, match=f"a.tar is damaged at byte {len(good)}"):
        scan(good + data + bytes(2048))


def test_sparse_archives_are_refused():
    old = header(tarfile.GNUTYPE_SPARSE, 512, "0.jpg") + bytes(2048)
    member = tarfile.TarInfo("0.jpg")
    member.pax_headers = {"GNU.sparse.major": "0", "GNU.sparse.size": "9", "GNU.sparse.map": "0,1"}
    pax = member.tobuf(tarfile.PAX_FORMAT) + bytes(2048)
    for data in (old, pax):
        with pytest.raises(UserError, match="a.tar has a sparse member at byte 0"):
            scan(data)


@settings(deadline=None, max_examples=200)
@given(st.data())
def test_damage_gives_a_sentence_or_samples(data):
    damaged = bytearray(archive(SAMPLES[:4]))
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, 3000))] = data.draw(st.integers(0, 255))
    try:
        assert all(sum(entry[:2]) <= len(damaged) for entry in scan(bytes(damaged)))
    except UserError as error:
        assert "a.tar" in str(error)
