"""Groups against numpy, bytes against rings that are run, programs compiled for eight devices."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hlo_snippets import SUM, loop_of, program_of
from simvlm_jax.planning.collectives import Collective, by_kind, collectives, groups_of
from simvlm_jax.planning.hlo import parse

SCRIPT = Path(__file__).with_name("collective_programs.py")


@pytest.fixture(scope="module")
def texts():
    run = subprocess.run([sys.executable, SCRIPT], capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


def ring_gather(n):
    """Chunks that one device sends until all have all: each passes on what came last."""
    have = [{device} for device in range(n)]
    moving, sent = list(range(n)), 0
    while any(len(chunks) < n for chunks in have):
        moving = [moving[device - 1] for device in range(n)]
        for device in range(n):
            have[device].add(moving[device])
        sent += 1
    return sent


def ring_scatter(n):
    """Chunks that one device sends until each holds the sum of one: partial sums go round."""
    sums = np.ones((n, n), int)  # by device and chunk
    for sent in range(n):
        if all(sums[device, (device + 1) % n] == n for device in range(n)):
            return sent
        moving = [sums[device, (device - sent) % n] for device in range(n)]
        for device in range(n):
            sums[device, (device - 1 - sent) % n] += moving[device - 1]
    raise AssertionError("The ring does not end.")


def test_the_rings_end():
    assert [ring_gather(n) for n in (2, 4, 7)] == [ring_scatter(n) for n in (2, 4, 7)] == [1, 3, 6]


HERE = 16 * 16 * 4  # bytes of one device's part of f32[64,32] over 4 x 2
ALONG_A, ALONG_B = (0, 2, 4, 6), (0, 1)
# What one device sends.
SENT = {
    "all-reduce": (ring_scatter(4) + ring_gather(4)) * HERE / 4,
    "all-gather": ring_gather(4) * HERE,  # its own part is a chunk
    "reduce-scatter": ring_scatter(4) * (4 * HERE) / 4,
    "all-to-all": 3 * HERE / 4,  # to each other one a quarter
    "collective-permute": HERE,
}


@pytest.mark.parametrize("kind", SENT)
def test_each_kind_of_a_real_program(kind, texts):
    (one,) = collectives(parse(texts[kind]), 8)
    group = (one.group, ALONG_A)
    if kind == "collective-permute":
        group = (one.group, (0, 2))
        ring = {(0, 2), (2, 4), (4, 6), (6, 0)}
        assert set(one.pairs) == ring | {(start + 1, end + 1) for start, end in ring}
    assert group[0] == group[1]
    assert (one.kind, one.times, one.dtype) == (kind, 1, "f32")
    assert one.bytes_sent == pytest.approx(SENT[kind])


def test_collectives_that_share_a_channel_count_each(texts):
    assert texts["several"].count("channel_id=1,") == 3
    found = {one.group: one.bytes_sent for one in collectives(parse(texts["several"]), 8)}
    assert found == {
        ALONG_A: 2 * 3 / 4 * HERE,
        ALONG_B: 2 * 1 / 2 * HERE,
        tuple(range(8)): 2 * 7 / 8 * 12,
    }


def test_loops_run_their_collectives_as_often_as_themselves(texts):
    found = list(collectives(parse(texts["repeated"]), 8))
    assert {(one.kind, one.times) for one in found} == {
        ("all-reduce", 15), ("collective-permute", 5), ("all-gather", 5),
    }  # fmt: skip
    assert by_kind(found) == {
        "all-reduce": pytest.approx(15 * SENT["all-reduce"]),
        "collective-permute": 5 * HERE,
        "all-gather": 5 * HERE,
    }


def test_what_xla_partitions(texts):
    found = list(collectives(parse(texts["partitioned"]), 8))
    gathers = [one for one in found if one.kind == "all-gather"]
    # The weights' rows are gathered over a: 64 x 16 of them, a quarter each.
    assert [(one.group, one.bytes_sent) for one in gathers] == [(ALONG_A, 3 * 16 * 16 * 4)]
    sums = [one for one in found if one.kind == "all-reduce"]
    assert len(sums) + len(gathers) == len(found)
    # One number, summed over all eight: at once, or over one axis after the other.
    covered = {device for one in sums for device in one.group}
    assert np.prod([len(one.group) for one in sums]) == 8 and {0, 1, 2, 4, 6} <= covered


SIZES = st.lists(st.integers(1, 4), min_size=1, max_size=4)


def grouped(ids, axes):
    """Devices that differ only in some axes of a mesh, found by comparing all of them."""
    groups = {}
    for place in np.ndindex(*ids.shape):
        fixed = tuple(at for axis, at in enumerate(place) if axis not in axes)
        inner = tuple(place[axis] for axis in axes)
        groups.setdefault(fixed, {})[inner] = int(ids[place])
    return [[group[inner] for inner in sorted(group)] for _, group in sorted(groups.items())]


@settings(max_examples=150, deadline=None)
@given(data=st.data(), sizes=SIZES)
def test_groups_of_a_mesh(data, sizes):
    axes = data.draw(st.lists(st.integers(0, len(sizes) - 1), min_size=1, unique=True))
    kind = data.draw(st.sampled_from(["in order", "transposed", "listed"]))
    ids, order = np.arange(np.prod(sizes)).reshape(sizes), ""
    if kind == "transposed":
        before = data.draw(st.permutations(sizes))
        turn = data.draw(st.permutations(range(len(sizes))))
        ids = np.arange(np.prod(sizes)).reshape(before).transpose(turn).reshape(sizes)
        order = f", device_ids=([{','.join(map(str, before))}]T({','.join(map(str, turn))}))"
    elif kind == "listed":
        ids = np.array(data.draw(st.permutations(range(ids.size)))).reshape(sizes)
        order = f", device_ids=({','.join(map(str, ids.ravel()))})"
    names = ",".join(f"'axis_{axis}'={size}" for axis, size in enumerate(sizes))
    chosen = ",".join(f"'axis_{axis}'" for axis in axes)
    text = f"all-gather(%x), replica_groups=mesh[{names}]{order} {{{chosen}}}, dimensions={{0}}"
    assert groups_of(text, ids.size) == grouped(ids, axes)


@settings(max_examples=100, deadline=None)
@given(data=st.data(), sizes=SIZES)
def test_groups_of_a_transposed_count(data, sizes):
    turn = data.draw(st.permutations(range(len(sizes))))
    size = int(np.prod(sizes))
    width = data.draw(st.sampled_from([n for n in range(1, size + 1) if size % n == 0]))
    dims = ",".join(map(str, sizes))
    text = f"[{size // width},{width}]<=[{dims}]T({','.join(map(str, turn))})"
    # Device d stands where counting through the transposed axes meets it.
    place = {}
    for number, at in enumerate(np.ndindex(*(sizes[axis] for axis in turn))):
        index = [0] * len(sizes)
        for axis, position in zip(turn, at, strict=True):
            index[axis] = position
        device = 0
        for axis, length in enumerate(sizes):
            device = device * length + index[axis]
        place[number] = device
    expected = [[place[row * width + n] for n in range(width)] for row in range(size // width)]
    assert groups_of(f"all-reduce(%x), replica_groups={text}, to_apply=%sum", size) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{{0,1},{2,3}}", [[0, 1], [2, 3]]),
        ("{{0,3},{1,2}}, use_global_device_ids=true", [[0, 3], [1, 2]]),
        ("{{0},{1},{2},{3}}", [[0], [1], [2], [3]]),
        ("{}", [[0, 1, 2, 3]]),
        ("[2,2]<=[4]", [[0, 1], [2, 3]]),
        ("[2,2]<=[2,2]T(1,0)", [[0, 2], [1, 3]]),
        ("mesh['a'=2,'b'=2] {'b'}", [[0, 1], [2, 3]]),
        ("mesh['a'=2,'b'=2] {'b','a'}", [[0, 2, 1, 3]]),
        # Parts of an axis: of four in a row, the outer two or the inner two.
        ("mesh['a'=4] {'a':(1)2}", [[0, 2], [1, 3]]),
        ("mesh['a'=4] {'a':(2)2}", [[0, 1], [2, 3]]),
        ("mesh['a'=2,'b'=4] {'b':(1)2,'a'}", [[0, 4, 2, 6], [1, 5, 3, 7]]),
        ("mesh['a'=8] {'a':(4)2,'a':(1)2}", [[0, 4, 1, 5], [2, 6, 3, 7]]),
    ],
)
def test_groups_as_xla_writes_them(text, expected):
    assert groups_of(f"all-reduce(%x), channel_id=1, replica_groups={text}, a={{0}}", 4) == expected


def test_without_groups_all_devices_are_one():
    assert groups_of("all-reduce(%x), to_apply=%sum", 5) == [[0, 1, 2, 3, 4]]


WHOLE, PART = "bf16[64,128]{1,0:T(8,128)(2,1)}", "bf16[4,128]{1,0:T(8,128)(2,1)}"
BYTES = 64 * 128 * 2
GROUPS = "replica_groups=[2,16]<=[32]"


def gather(channel, name="g"):
    return f"%{name} = {WHOLE} all-gather(%p), channel_id={channel}, {GROUPS}, dimensions={{0}}"


def test_one_that_overlaps_counts_once_by_its_channel():
    held = [f"%p = {PART} parameter(0)", "ROOT " + gather(7)]
    started = f"%start = {WHOLE} fusion(%p), kind=kCustom, calls=%begin"
    awaited = f"%done = {WHOLE} fusion(%p), kind=kCustom, calls=%end"
    program = loop_of(
        [f"%p = {PART} parameter(0)", started, awaited, gather(8, "h"), gather(9, "k")],
        trips=3,
        begin=held,
        end=[held[0], held[1].replace("%g", "%g.1")],
    )
    found = list(collectives(program, 32))
    one = Collective("all-gather", BYTES * 15 / 16, 3, tuple(range(16)), "bf16")
    assert found == [one] * 3  # channels 7, 8 and 9


def test_channel_one_is_no_name():
    held = [f"%p = {PART} parameter(0)", "ROOT " + gather(1, "h")]
    entry = [
        f"%p = {PART} parameter(0)",
        gather(1),
        f"ROOT %f = {WHOLE} fusion(%p), kind=kCustom, calls=%held",
    ]
    assert len(list(collectives(program_of(entry, held=held), 32))) == 2


def test_one_started_and_awaited_counts_once_and_what_stays_at_home_not_at_all():
    entry = [
        f"%p = {PART} parameter(0)",
        f"%s = ({PART}, {WHOLE}) all-gather-start(%p), channel_id=3, {GROUPS}, dimensions={{0}}",
        f"%d = {WHOLE} all-gather-done(%s)",
        f"%alone = {PART} all-reduce(%p), channel_id=4, replica_groups=[32,1]<=[32], to_apply=%sum",
        f"ROOT %still = {PART} collective-permute(%p), channel_id=5, "
        "source_target_pairs={{0,0},{1,1}}",
    ]
    (one,) = collectives(program_of(entry, sum=SUM), 32)
    assert (one.kind, one.bytes_sent) == ("all-gather", BYTES * 15 / 16)


def test_one_wrapped_in_a_computation_counts_where_it_starts():
    scatter = f"reduce-scatter(%p), channel_id=6, {GROUPS}, dimensions={{0}}, to_apply=%sum"
    entry = [
        f"%p = {WHOLE} parameter(0)",
        f"%s = (({WHOLE}), {PART}, s32[]) async-start(%p), calls=%wrapped",
        f"ROOT %d = {PART} async-done(%s), calls=%wrapped",
    ]
    wrapped = [f"%p = {WHOLE} parameter(0)", f"ROOT %r = {PART} {scatter}"]
    (one,) = collectives(program_of(entry, wrapped=wrapped, sum=SUM), 32)
    assert (one.kind, one.bytes_sent) == ("reduce-scatter", BYTES * 15 / 16)


SUMMED = [
    f"%p = {WHOLE} parameter(0)",
    f"%r = {WHOLE} all-reduce(%p), channel_id=1, {GROUPS}, to_apply=%sum",
]
SLICE = f"%part = {PART} dynamic-slice(%r, %i, %z), dynamic_slice_sizes={{4,128}}"
FUSION = [f"%p = {WHOLE} parameter(0)", f"ROOT %f = {PART} fusion(%p), kind=kCustom, calls=%inside"]


def kinds(entry, **computations):
    found = collectives(program_of(entry, sum=SUM, **computations), 32)
    return [(one.kind, one.bytes_sent) for one in found]


def test_a_sum_that_a_fusion_only_slices_is_a_reduce_scatter():
    assert kinds(FUSION, inside=[*SUMMED, "ROOT " + SLICE]) == [("reduce-scatter", BYTES * 15 / 16)]
    two = [
        SUMMED[0],
        f"%r2 = ({WHOLE}, {WHOLE}) all-reduce(%p, %p), channel_id=1, {GROUPS}, to_apply=%sum",
        f"%r = {WHOLE} get-tuple-element(%r2), index=0",
        "ROOT " + SLICE,
    ]
    assert kinds(FUSION, inside=two) == [("reduce-scatter", 2 * BYTES * 15 / 16)]


def test_a_sum_that_is_also_read_or_sliced_elsewhere_is_an_all_reduce():
    whole = [("all-reduce", 2 * BYTES * 15 / 16)]
    both = [*SUMMED, SLICE, f"ROOT %t = ({PART}, {WHOLE}) tuple(%part, %r)"]
    assert kinds(FUSION, inside=both) == whole
    assert kinds([*SUMMED, "ROOT " + SLICE]) == whole  # it is done before the slice is taken
    assert kinds(FUSION, inside=[SUMMED[0], "ROOT " + SUMMED[1]]) == whole


def test_the_padding_of_tiles_is_not_sent():
    entry = [f"%p = {PART} parameter(0)", "ROOT " + gather(2)]
    (one,) = collectives(program_of(entry), 32)
    assert one.bytes_sent == 15 * 4 * 128 * 2  # not of the 8 rows that a tile has


def test_bytes_are_summed_by_kind():
    make = lambda kind, sent, times: Collective(kind, sent, times, (0, 1), "f32")  # noqa: E731
    found = [make("all-gather", 3.0, 2), make("all-reduce", 5.0, 1), make("all-gather", 1.0, 4)]
    assert by_kind(found) == {"all-gather": 10.0, "all-reduce": 5.0}
    assert by_kind([]) == {}


def test_what_tpu_slices_send_one_another():
    """Three slices of two devices: an all-reduce of 600 bytes sends 2 x 600 x 2/3 from each."""
    attributes = (
        "is_host_transfer=true, frontend_attributes={_xla_host_transfer_handler_name="
        '"xla_megascale_runtime",_xla_megascale_reduce_operation="SUM",'
        '_xla_megascale_target="{1,2,3}x{0:1}",_xla_megascale_transfer_type="ALL_REDUCE"}'
    )
    lines = [
        "%p = bf16[300]{0} parameter(0)",
        "%after = token[] after-all()",
        f"ROOT %s = (bf16[300]{{0}}, u32[], token[]) send(%p, %after), channel_id=7, {attributes}",
    ]
    (one,) = collectives(program_of(lines), 6)
    assert (one.kind, one.times, one.group) == ("all-reduce", 1, (0, 2, 4))
    assert one.bytes_sent == pytest.approx(2 * 600 * 2 / 3)
    plain = lines[-1].replace("_xla_megascale_target", "target")
    assert list(collectives(program_of([*lines[:-1], plain]), 6)) == []
