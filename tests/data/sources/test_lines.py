import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simvlm_jax.data.sources import lines
from simvlm_jax.data.sources.base import BadRecord
from simvlm_jax.data.sources.lines import first_line, line_starts, read_span

PIECES = st.sampled_from(["\n", "\r\n", "\r", " ", "\t", "\x00", "a", "é", "🙂", "\u2028", "b c"])
CONTENT = st.lists(PIECES, max_size=40).map("".join)


def starts(path, paragraphs=False):
    with open(path, "rb", buffering=0) as file:
        return line_starts(file, paragraphs)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tmp_path_factory.mktemp("lines") / "text"


@settings(deadline=None)
@given(content=CONTENT, block=st.integers(1, 9), bom=st.booleans())
def test_lines_are_those_of_reading_in_order(path, content, block, bom):
    path.write_bytes(content.encode("utf-8-sig" if bom else "utf-8"))
    with open(path, encoding="utf-8-sig", newline="\n") as file:
        wanted = [line.encode().removesuffix(b"\n").removesuffix(b"\r") for line in file]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lines, "BLOCK", block)  # lines end in every place of a block
        found = starts(path)
    with open(path, "rb") as file:
        size = path.stat().st_size
        read = [first_line(read_span(file, found, i, size)) for i in range(len(found))]
    assert read == [line for line in wanted if line.strip()]
    assert found.dtype == np.uint64


@settings(deadline=None)
@given(content=CONTENT, block=st.integers(1, 9))
def test_paragraphs_begin_after_blank_lines(path, content, block):
    path.write_bytes(content.encode())
    wanted, offset, after_blank = [], 0, True
    for line in content.encode().split(b"\n"):
        if line.strip() and after_blank:
            wanted.append(offset)
        offset, after_blank = offset + len(line) + 1, not line.strip()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lines, "BLOCK", block)
        assert starts(path, paragraphs=True).tolist() == wanted


def test_a_long_line_is_never_read_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(lines, "LONGEST", 8)
    path = tmp_path / "text"
    path.write_bytes(b"12345678\r\n123456789\n" + b"x" * 1000 + b"\nend\n\n\n")
    found = starts(path)
    with open(path, "rb") as file:
        spans = [read_span(file, found, i, path.stat().st_size) for i in range(4)]
    assert max(map(len, spans)) == 10
    assert first_line(spans[0]) == b"12345678" and first_line(spans[3]) == b"end"
    for span in spans[1:3]:
        with pytest.raises(BadRecord, match="the line is longer than"):
            first_line(span)
