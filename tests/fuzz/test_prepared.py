"""What others prepared, and texts on the command line: right, or a sentence."""

import gzip
import json

import pytest
import zstandard
from hypothesis import example, given
from hypothesis import strategies as st

import gin
from fuzz.hostile import FEW, MIB, SOME, at_most, bytes_like, changed_json
from simvlm_jax import configuration
from simvlm_jax.data import summary
from simvlm_jax.data.ledger import FailureLedger
from simvlm_jax.data.preparing.data_sets import DataSet
from simvlm_jax.data.preparing.sentences import LONGEST_SENTENCE, _sentences
from simvlm_jax.data.sources.cached_text import cached_text
from simvlm_jax.data.sources.patterns import find_shards
from simvlm_jax.errors import UserError
from simvlm_jax.planning import hlo, lengths, topologies

ENTRY = {"step": 3, "source": "pairs", "shard": "a.tar", "key": "1", "cause": "it is no JPEG"}
LEDGER = (json.dumps(ENTRY) + "\n").encode() * 2


@SOME
@given(bytes_like(LEDGER) | changed_json(ENTRY).map(lambda v: json.dumps(v).encode() + b"\n"))
@example(b"[" * 100_000 + b"\n")
@example(b'{"step": 1, "source": ["a"], "shard": "b", "key": "c", "cause": "d"}\n')
@example(b"\xff\xfe\n")
def test_a_ledger(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("ledger") / "ledger.jsonl"
    path.write_bytes(content)
    ledger = FailureLedger()
    try:
        ledger.open(path.parent)
    except UserError as error:
        assert str(path) in str(error)
    else:
        assert all(isinstance(failure.shard, str) for failure in ledger.named)


def test_a_ledger_of_gigabytes_is_refused(tmp_path):
    with (tmp_path / "ledger.jsonl").open("wb") as file:
        file.truncate(1 << 40)
    with at_most(16), pytest.raises(UserError, match="ledger.jsonl has 1099511627776 bytes"):
        FailureLedger().open(tmp_path)


SUMMARY = {
    "settings": {"seed": 0},
    "counts": {"openmoji": {"train": 1}},
    "packages": {"python": "3.11"},
    "files": {"a.txt": {"bytes": 2, "sha256": "00"}},
}


@SOME
@given(changed_json(SUMMARY))
@example(SUMMARY | {"files": []})
@example(SUMMARY | {"files": {"a.txt": "00"}})
@example(SUMMARY | {"files": {"../../etc/passwd": {"sha256": "00"}}})
@example(SUMMARY | {"files": {"/etc/passwd": {"sha256": "00"}}})
@example(SUMMARY | {"settings": []})
def test_a_summary(tmp_path_factory, value):
    place = tmp_path_factory.mktemp("summary")
    (place / summary.SUMMARY_NAME).write_text(json.dumps(value))
    found = summary.read_summary(place)
    if found is not None:
        assert all(
            ".." not in name.split("/") and name[0] != "/" for name in summary.files_of(found)
        )
        summary.damaged_files(place, found)
        summary.changed_packages(found)
        try:
            summary.check_settings(place, found, {"seed": 0})
        except UserError:
            pass


@SOME
@given(changed_json(SUMMARY) | bytes_like(json.dumps(SUMMARY).encode()))
@example(b"[" * 100_000)
@example(SUMMARY | {"settings": {"input": {}, "seed": []}})
def test_the_summary_of_a_data_set(tmp_path_factory, value):
    place = tmp_path_factory.mktemp("data")
    data_set = DataSet(place, "mine", "train")
    data_set.folder.mkdir()
    content = value if isinstance(value, bytes) else json.dumps(value).encode()
    data_set.summary_path.write_bytes(content)
    try:
        found = data_set.finished({"seed": 0}, ("train",))
    except UserError as error:
        assert str(data_set.folder) in str(error)
    else:
        assert found is None  # a.txt is not there, so nothing is finished


@pytest.mark.parametrize(
    "content",
    [gzip.compress(bytes(64 * MIB)), zstandard.compress(bytes(64 * MIB))],
    ids=["gzip", "zstd"],
)
def test_a_text_that_unpacks_without_end(tmp_path, monkeypatch, content):
    monkeypatch.setenv("SIMVLM_CACHE_DIR", str(tmp_path / "cache"))
    path = tmp_path / ("a.txt.gz" if content[:2] == b"\x1f\x8b" else "a.txt.zst")
    path.write_bytes(content)
    with at_most(300), pytest.raises(UserError, match="looks like a decompression bomb"):
        cached_text(str(path))
    assert not [found for found in (tmp_path / "cache").rglob("*") if found.is_file()]


PARTS = ["{1..2}", "*", "[", "a", "/", "..", "\0"]


def test_a_long_line_is_cut_in_time():
    """Cutting what is left anew would take the square of it: minutes, here."""
    line = ("word " * 199 + "longer ") * 16_000
    found = list(_sentences(line))
    assert " ".join(found).split() == line.split()
    assert max(map(len, found)) <= LONGEST_SENTENCE


@FEW
@given(
    st.text(max_size=40)
    | st.lists(st.sampled_from(["{1..2}", "*", "[", "a", "/", "..", "\0"])).map("".join)
)
@example("{1..1}" * 3000)
@example("{1.." + "9" * 5000 + "}")
@example("{0..999999}{0..999999}")
@example("a" * 5000)
def test_patterns(tmp_path_factory, pattern):
    import os

    place = tmp_path_factory.mktemp("patterns")
    if pattern.startswith(("/", "~")) or ".." in pattern.split("/") or "://" in pattern:
        pattern = f"x{pattern.replace('://', '').replace('..', '.')}"
    os.environ["SIMVLM_DATA_DIR"] = str(place)
    try:
        with at_most(200):
            found = find_shards(pattern, "The split")
        assert found and all(isinstance(name, str) for name in found)
    except UserError as error:
        assert str(error).startswith("The split")
    finally:
        del os.environ["SIMVLM_DATA_DIR"]


@SOME
@given(st.text(st.sampled_from("0123456789:,.-+enaif_"), max_size=20) | st.text(max_size=12))
@example("8:nan")
@example("8:inf")
@example("1000000000000:1")
@example("9" * 5000)
@example("8:1e999")
def test_lengths(text):
    try:
        found = lengths.parse(text)
    except UserError:
        return
    assert found and all(1 <= n <= 1 << 20 and 0 < w < float("inf") for n, w in found.items())


@SOME
@given(st.text(st.sampled_from("0123456789x:vcpuh"), max_size=16) | st.text(max_size=12))
@example("cpu:999999999")
@example("v5e:99999x99999x99999")
@example("cpu:" + "9" * 5000)
@example("cpu:\u0663")
def test_topologies(name):
    try:
        kind, shape = topologies.parse(name)
    except UserError:
        return
    assert kind in ("cpu", *topologies.CHIPS) and 1 <= min(shape) <= max(shape) <= 1 << 16


PROGRAM = """HloModule m

%body (p: (s32[], f32[2])) -> (s32[], f32[2]) {
  %p = (s32[], f32[2]{0:T(8)}) parameter(0)
  ROOT %t = (s32[], f32[2]) tuple(%p)
}

ENTRY %main (a: f32[2,3]) -> f32[2] {
  %a = f32[2,3]{1,0:T(8,128)S(1)} parameter(0), metadata={op_name="x"}
  ROOT %r = f32[2]{0} fusion(%a), kind=kLoop, calls=%body
}
"""


@SOME
@given(bytes_like(PROGRAM.encode()).map(lambda content: content.decode("utf-8", "replace")))
def test_a_compiled_program(text):
    """It is the compiler's own, so what is none need only be told apart."""
    try:
        program = hlo.parse(text)
    except ValueError:
        return
    assert program.entry in program.computations


GIN = "A = 3\nB = [1, 'x', %A]\n# a note\nsome/scope.fn.x = @other()\ninclude './none.gin'\n"


@SOME
@given(bytes_like(GIN.encode()))
@example(b"A = " + b"[" * 5000)
@example(b"A = " + b"(" * 200 + b"\n")
@example(b"A = '''\n")
@example(b"A = {[]: 1}\n")
@example(b"include 'self.gin'\n")
@example(b"A = \0\n")
@example(b"import no_such_module_of_anyone\n")
@example(b"A = " + b"9" * 5000 + b"\n")
def test_a_gin_file(tmp_path_factory, content):
    """That its imports run is said where one is opened; the rest of it harms nobody."""
    place = tmp_path_factory.mktemp("gin")
    path = place / "self.gin"
    # What hypothesis makes up must not import a module that there is.
    path.write_bytes(b"\n".join(n for n in content.split(b"\n") if b"from" not in n))
    try:
        configuration.load([str(path)])
    except UserError as error:
        assert str(error).startswith("The gin configuration is not valid") and "\n" not in str(
            error
        )
    finally:
        gin.clear_config()
