"""Bytes of main memory, each program small enough to add up by hand."""

import jax
import jax.numpy as jnp
import pytest

from hlo_snippets import SUM, compiled, loop_of, program_of
from simvlm_jax.planning.costs import memory_bytes
from simvlm_jax.planning.hlo import parse


def total(*entry, **computations):
    return memory_bytes(program_of(entry, **computations))


PADDED = 8 * 384 * 2  # bytes of bf16[4,260] in tiles of 8 x 128
SMALL = "bf16[4,260]{1,0:T(8,128)(2,1)}"
ON_CHIP = "bf16[4,260]{1,0:T(8,128)(2,1)S(1)}"


def test_an_instruction_reads_its_operands_and_writes_its_result_with_their_padding():
    assert (
        total(
            f"%a = {SMALL} parameter(0)",
            f"%b = {SMALL} parameter(1)",
            f"ROOT %c = {SMALL} add(%a, %b)",
        )
        == 3 * PADDED
    )


def test_what_lies_on_the_chip_costs_nothing():
    lines = (
        f"%a = {SMALL} parameter(0)",
        f"%b = {ON_CHIP} parameter(1)",
        f"%c = {ON_CHIP} add(%a, %b)",
        f"ROOT %d = {SMALL} negate(%c)",
    )
    assert total(*lines) == 2 * PADDED  # a is read and d written
    fused = (*lines[:2], f"ROOT %d = {SMALL} fusion(%a, %b), kind=kLoop, calls=%inside")
    assert total(*fused, inside=lines) == 2 * PADDED


def test_names_and_views_of_what_is_there_cost_nothing():
    assert (
        total(
            f"%a = {SMALL} parameter(0)",
            f"%b = {SMALL} bitcast(%a)",
            f"%c = ({SMALL}, {SMALL}) tuple(%a, %b)",
            f"%d = {SMALL} get-tuple-element(%c), index=1",
            f'%e = {SMALL} custom-call(), custom_call_target="AllocateBuffer"',
            f'%f = {SMALL} custom-call(%d), custom_call_target="ConcatBitcast"',
            f"ROOT %g = {SMALL} opt-barrier(%f)",
        )
        == 0
    )


def test_a_custom_call_that_works_is_counted_whatever_its_source_is_called():
    named = 'custom_call_target="Sort", metadata={op_name="Sharding"}'
    negated = f'ROOT %c = {SMALL} negate(%b), metadata={{op_name="SPMD/f"}}'
    lines = f"%a = {SMALL} parameter(0)", f"%b = {SMALL} custom-call(%a), {named}", negated
    assert total(*lines) == 4 * PADDED


STACK = "f32[64,8,128]{2,1,0:T(8,128)}"
LAYER = "f32[1,8,128]{2,1,0:T(8,128)}"
INDEX = "s32[]{:T(128)S(6)}"
LAYER_BYTES = 8 * 128 * 4
STACK_BYTES = 64 * LAYER_BYTES
SLICED = [
    f"%stack = {STACK} parameter(0)",
    f"%i = {INDEX} parameter(1)",
    f"%slice = {LAYER} dynamic-slice(%stack, %i, %i, %i), dynamic_slice_sizes={{1,8,128}}",
    f"ROOT %double = {LAYER} add(%slice, %slice)",
]
ENTRY = [f"%stack = {STACK} parameter(0)", f"%i = {INDEX} parameter(1)"]


def test_of_what_a_fusion_only_slices_the_slice_counts():
    fusion = f"ROOT %out = {LAYER} fusion(%stack, %i), kind=kLoop, calls=%inside"
    assert total(*ENTRY, fusion, inside=SLICED) == 2 * LAYER_BYTES
    view = [f"%view = {STACK} bitcast(%stack)", SLICED[2].replace("(%stack", "(%view")]
    assert total(*ENTRY, fusion, inside=[*SLICED[:2], *view, SLICED[3]]) == 2 * LAYER_BYTES
    nested = [*ENTRY, f"ROOT %in = {LAYER} fusion(%stack, %i), kind=kLoop, calls=%deep"]
    assert total(*ENTRY, fusion, inside=nested, deep=SLICED) == 2 * LAYER_BYTES


def test_slices_never_count_more_than_the_whole():
    slices = [SLICED[2].replace("%slice", f"%slice.{n}") for n in range(100)]
    fusion = f"ROOT %out = {LAYER} fusion(%stack, %i), kind=kLoop, calls=%inside"
    assert total(*ENTRY, fusion, inside=[*SLICED[:2], *slices, SLICED[3]]) == (
        STACK_BYTES + LAYER_BYTES
    )


def test_what_a_fusion_slices_and_also_reads_counts_whole():
    also = f"%whole = {STACK} negate(%stack)"
    fusion = f"ROOT %out = {LAYER} fusion(%stack, %i), kind=kLoop, calls=%inside"
    assert total(*ENTRY, fusion, inside=[*SLICED[:3], also, SLICED[3]]) == (
        STACK_BYTES + LAYER_BYTES
    )
    # Handed twice to a fusion within, once to be sliced and once to be read.
    twice = [*ENTRY, f"ROOT %in = {LAYER} fusion(%stack, %i, %stack), kind=kLoop, calls=%deep"]
    deep = [
        *SLICED[:3],
        f"%again = {STACK} parameter(2)",
        f"%whole = {STACK} negate(%again)",
        SLICED[3],
    ]
    assert total(*ENTRY, fusion, inside=twice, deep=deep) == STACK_BYTES + LAYER_BYTES


def test_slices_outside_fusions_read_what_they_take():
    assert total(*ENTRY, "ROOT" + SLICED[2].replace("%", " %", 1)) == 2 * LAYER_BYTES
    rows = "s32[3]{0:T(128)}"
    gathered = "f32[3,8,128]{2,1,0:T(8,128)}"
    assert (
        total(
            ENTRY[0], f"%rows = {rows} parameter(1)", f"ROOT %g = {gathered} gather(%stack, %rows)"
        )
        == 2 * 3 * LAYER_BYTES + 128 * 4
    )


def test_a_stack_on_the_chip_is_sliced_for_nothing():
    on_chip = ENTRY[0].replace("T(8,128)", "T(8,128)S(1)")
    assert total(on_chip, ENTRY[1], "ROOT" + SLICED[2].replace("%", " %", 1)) == LAYER_BYTES


UPDATE = [
    f"%stack = {STACK} parameter(0)",
    f"%i = {INDEX} parameter(1)",
    f"%new = {LAYER} parameter(2)",
]
IN_PLACE = f"ROOT %u = {STACK} dynamic-update-slice(%stack, %new, %i, %i, %i)"


def test_an_update_in_place_reads_and_writes_the_update():
    assert total(*UPDATE, IN_PLACE) == 2 * LAYER_BYTES


def test_an_update_in_place_within_a_fusion_reads_and_writes_the_update():
    fusion = f"ROOT %out = {STACK} fusion(%stack, %i, %new), kind=kLoop, calls=%inside"
    assert total(*UPDATE, fusion, inside=[*UPDATE, IN_PLACE]) == 2 * LAYER_BYTES
    viewed = [*UPDATE, IN_PLACE.removeprefix("ROOT "), f"ROOT %view = {STACK} bitcast(%u)"]
    assert total(*UPDATE, fusion, inside=viewed) == 2 * LAYER_BYTES
    nested = [*UPDATE, fusion.replace("%inside", "%deep")]
    assert total(*UPDATE, fusion, inside=nested, deep=[*UPDATE, IN_PLACE]) == 2 * LAYER_BYTES


def test_of_several_results_each_counts_its_own():
    fusion = (
        f"ROOT %out = ({STACK}, {LAYER}, {LAYER.replace(')', ')S(1)')}) fusion(%stack, %i, %new), "
        "kind=kLoop, calls=%inside"
    )
    inside = [
        *UPDATE,
        IN_PLACE.removeprefix("ROOT "),
        f"%n = {LAYER} negate(%new)",
        f"ROOT %t = ({STACK}, {LAYER}, {LAYER}) tuple(%u, %n, %n)",
    ]
    assert total(*UPDATE, fusion, inside=inside) == LAYER_BYTES + 2 * LAYER_BYTES


def test_of_one_instruction_with_several_results_all_count():
    fusion = f"ROOT %out = ({LAYER}, {LAYER}) fusion(%new), kind=kInput, calls=%inside"
    inside = [
        f"%new = {LAYER} parameter(0)",
        f"ROOT %r = ({LAYER}, {LAYER}) reduce(%new, %new), dimensions={{0}}, to_apply=%sum",
    ]
    assert total(UPDATE[2], fusion, inside=inside, sum=SUM) == 3 * LAYER_BYTES


def test_loops_multiply():
    read = [f"%a = {SMALL} parameter(0)", f"ROOT %b = {ON_CHIP} negate(%a)"]
    assert memory_bytes(loop_of(read, trips=6)) == 6 * PADDED


# What XLA starts early and awaits later, and what it moves.
NOTE = "u32[]{:S(2)}"
ASYNC = {
    "copy onto the chip": (f"({ON_CHIP}, {SMALL}, {NOTE}) copy-start(%a)", PADDED),
    "copy from the chip": (f"({SMALL}, {ON_CHIP}, {NOTE}) copy-start(%chip)", PADDED),
    "slice": (
        "((f32[64,8,128]{2,1,0:T(8,128)}), f32[4,8,128]{2,1,0:T(8,128)S(1)}, s32[]{:S(2)}) "
        "slice-start(%stack), slice={[0:4], [0:8], [0:128]}",
        4 * LAYER_BYTES,
    ),
    "permute": (
        f"({SMALL}, {SMALL}, {NOTE}, {NOTE}) collective-permute-start(%a), channel_id=1, "
        "source_target_pairs={{0,1},{1,0}}",
        2 * PADDED,
    ),
    "gather": (
        f"({LAYER}, {STACK}) all-gather-start(%new), replica_groups=[1,64]<=[64]",
        LAYER_BYTES + STACK_BYTES,
    ),
    "reduce": (f"{SMALL} all-reduce-start(%a), to_apply=%sum", 2 * PADDED),
    "reduce two": (f"({SMALL}, {LAYER}) all-reduce-start(%a, %new), to_apply=%sum",
                   2 * (PADDED + LAYER_BYTES)),
    "scatter": (
        f"(({STACK}), {LAYER}, {NOTE}) reduce-scatter-start(%stack), to_apply=%sum",
        STACK_BYTES + LAYER_BYTES,
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", ASYNC)
def test_what_runs_beside_other_work_counts_once(kind):
    start, expected = ASYNC[kind]
    name = start.split("(%")[0].split()[-1].replace("-start", "-done")
    found = total(
        f"%a = {SMALL} parameter(0)",
        f"%chip = {ON_CHIP} parameter(1)",
        f"%stack = {STACK} parameter(2)",
        f"%new = {LAYER} parameter(3)",
        f"%start = {start}",
        f"ROOT %done = {SMALL} {name}(%start)",
        sum=SUM,
    )
    assert found == expected


def test_a_wrapped_computation_counts_where_it_starts():
    inside = [f"%x = {SMALL} parameter(0)", f"ROOT %y = {SMALL} negate(%x)"]
    assert (
        total(
            f"%a = {SMALL} parameter(0)",
            f"%s = (({SMALL}), {SMALL}, {NOTE}) async-start(%a), calls=%inside",
            f"%u = (({SMALL}), {SMALL}, {NOTE}) async-update(%s)",
            f"ROOT %d = {SMALL} async-done(%u)",
            inside=inside,
        )
        == 2 * PADDED
    )


GATHER = "all-gather(%shard), channel_id=7, replica_groups=[1,64]<=[64], dimensions={0}"


def test_a_collective_within_other_fusions_counts_where_it_starts():
    """Three fusions hold it: one starts it, one multiplies meanwhile, one awaits it."""
    state = f"{LAYER}, {STACK}, {NOTE}"
    shard, room, note = (
        f"%shard = {LAYER} parameter(0)",
        f"%room = {STACK} parameter(1)",
        f"%note = {NOTE} parameter(2)",
    )
    parts = [
        f"%s = {LAYER} get-tuple-element(%begun), index=0",
        f"%r = {STACK} get-tuple-element(%begun), index=1",
        f"%n = {NOTE} get-tuple-element(%begun), index=2",
    ]
    program = program_of(
        [
            shard,
            f"%x = {SMALL} parameter(1)",
            f"%begun = ({state}) fusion(%shard), kind=kCustom, "
            "output_to_operand_aliasing={{0}: (0, {})}, calls=%begin",
            *parts,
            f"%meanwhile = ({SMALL}, {state}) fusion(%s, %r, %n, %x), kind=kOutput, "
            "output_to_operand_aliasing={{1}: (0, {}), {2}: (1, {}), {3}: (2, {})}, "
            "calls=%work",
            f"ROOT %done = {STACK} fusion(%s, %r, %n), kind=kCustom, "
            "output_to_operand_aliasing={{}: (1, {})}, calls=%end",
        ],
        begin=[
            shard,
            f"%g = {STACK} {GATHER}",
            f'ROOT %c = ({state}) custom-call(%g), custom_call_target="AsyncCollectiveStart"',
        ],
        work=[
            shard, room, note,
            f"%x = {SMALL} parameter(3)",
            f"%y = {SMALL} negate(%x)",
            f"%g = {STACK} {GATHER}",
            f"ROOT %t = ({SMALL}, {state}) tuple(%y, %shard, %g, %note)",
        ],
        end=[
            shard, room, note,
            f"%g = {STACK} {GATHER}",
            f"ROOT %c = {STACK} custom-call(%shard, %room, %g, %note), "
            'custom_call_target="AsyncCollectiveDone"',
        ],
    )  # fmt: skip
    gathered, worked = LAYER_BYTES + STACK_BYTES, 2 * PADDED
    assert memory_bytes(program) == gathered + worked


LOOPLESS = {
    "product": (lambda x, y: x @ y, (64, 96), (96, 32)),
    "sum": (lambda x: x.sum(0), (64, 96)),
    "two results": (lambda x: (jnp.tanh(x), x + 1), (64, 96)),
    "layers": (lambda x, y, z: jax.nn.gelu(x @ y) @ z, (16, 64), (64, 96), (96, 32)),
    "slice": (lambda x: jnp.tanh(x[:8]), (64, 96)),
}


@pytest.mark.parametrize("name", LOOPLESS)
def test_without_loops_xla_counts_the_same(name):
    program = compiled(*LOOPLESS[name])
    theirs = program.cost_analysis()["bytes accessed"]
    assert memory_bytes(parse(program.as_text())) == pytest.approx(theirs, rel=0.01)


def test_a_scan_reads_its_stack_once():
    def run(start, weights):
        step = lambda carry, weight: (jnp.tanh(carry @ weight), None)  # noqa: E731
        return jax.lax.scan(step, start, weights)[0]

    stack, carry = 16 * 128 * 128 * 4, 8 * 128 * 4
    found = memory_bytes(parse(compiled(run, (8, 128), (16, 128, 128)).as_text()))
    # Each layer is sliced out, written, and read by the product; the rest is the carry's.
    assert 3 * stack < found < 3 * stack + 16 * 8 * carry
