"""Programs written by hand with known contents, and real ones whose loops are counted by hand."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hlo_snippets import compiled, loop_of, program_of, text_of
from simvlm_jax.planning.hlo import Array, arrays_of, parse

SHAPES = {
    "f32[]": [Array("f32", ())],
    "pred[7]": [Array("pred", (7,))],
    "bf16[4,260]{1,0:T(8,128)(2,1)}": [Array("bf16", (4, 260), 0, (1, 0), (8, 128))],
    "bf16[2,4,260]{2,1,0:T(8,128)(2,1)S(1)}": [Array("bf16", (2, 4, 260), 1, (2, 1, 0), (8, 128))],
    "bf16[5120]{0:T(1024)(128)(2,1)S(1)}": [Array("bf16", (5120,), 1, (0,), (1024,))],
    "u32[]{:S(2)}": [Array("u32", (), 2)],
    "s32[]{:T(128)S(6)}": [Array("s32", (), 6, (), (128,))],
    "((f32[16,64]{0,1}), bf16[4,64]{1,0:T(8,128)(2,1)S(1)}, /*index=2*/s32[]{:S(2)})": [
        Array("f32", (16, 64), 0, (0, 1)),
        Array("bf16", (4, 64), 1, (1, 0), (8, 128)),
        Array("s32", (), 2),
    ],
    "()": [],
}


@pytest.mark.parametrize("shape", SHAPES)
def test_shapes_are_read_with_their_tiles_and_memory_spaces(shape):
    assert list(arrays_of(shape)) == SHAPES[shape]


TYPES = (
    "bool", "int8", "uint16", "bfloat16", "float32", "complex64", "float8_e4m3fn", "float8_e5m2",
    "float8_e4m3b11fnuz",
)  # fmt: skip


@pytest.mark.parametrize("name", TYPES)
def test_the_bytes_of_a_type_are_those_of_jax(name):
    program = parse(compiled(lambda x: x, (3, 5), dtype=name).as_text())
    (array,) = program.computations[program.entry].parameters[0].arrays
    assert array.packed == 15 * jnp.dtype(name).itemsize


def touched(dims, order, tile):
    """Elements of all tiles that an array lies in, every element asked for its tile."""
    sizes = [dims[axis] for axis in order]  # the first has its neighbours side by side
    units = [*reversed(tile)][: len(sizes)]
    units += [1] * (len(sizes) - len(units))
    tiles = {
        tuple(index // unit for index, unit in zip(place, units, strict=True))
        for place in itertools.product(*map(range, sizes))
    }
    return len(tiles) * int(np.prod(units))


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_tiles_pad_the_dimensions_that_lie_together(data):
    dims = data.draw(st.lists(st.integers(1, 9), min_size=1, max_size=3))
    order = data.draw(st.permutations(range(len(dims))))
    tile = data.draw(st.lists(st.integers(1, 5), max_size=2))
    tiles = f":T({','.join(map(str, tile))})(2,1)" if tile else ""
    layout = ",".join(map(str, order)) + tiles
    (array,) = arrays_of(f"bf16[{','.join(map(str, dims))}]{{{layout}}}")
    assert array.bytes == 2 * touched(dims, order, tile)
    assert array.packed == 2 * np.prod(dims)


def test_a_padded_array_is_larger_than_what_is_in_it():
    (array,) = arrays_of("bf16[4,260]{1,0:T(8,128)(2,1)}")
    assert (array.packed, array.bytes) == (4 * 260 * 2, 8 * 384 * 2)
    (turned,) = arrays_of("bf16[4,260]{0,1:T(8,128)(2,1)}")
    assert turned.bytes == 264 * 128 * 2


LINE = (
    "ROOT %copy-start.3 = (f32[8]{0:T(128)}, f32[8]{0:T(128)S(1)}, u32[]{:S(2)}) "
    "copy-start(f32[8]{0:T(128)S(1)} %a.b-c, /*index=1*/%d), calls=%inner, "
    'metadata={op_name="jit(f)/body=%none (x)"}, backend_config={"known":"to_apply=%late"}'
)


def test_an_instruction_is_taken_apart():
    one = program_of([LINE]).computations["main"].root
    assert one.name == "copy-start.3" and one.opcode == "copy-start" and one.is_root
    assert one.operands == ("a.b-c", "d")
    assert [array.space for array in one.arrays] == [0, 1, 2]
    assert one.bytes == 512 + 512 + 4
    assert one.called == {"calls": "inner", "to_apply": "late"}  # "body" is the source's name


def test_users_parameters_and_root_of_a_computation():
    computation = program_of(
        [
            "%second = f32[2]{0} parameter(1)",
            "%first = f32[2]{0} parameter(0)",
            "%square = f32[2]{0} multiply(%first, %first)",
            "ROOT %sum = f32[2]{0} add(%square, %second)",
            "%after = f32[2]{0} negate(%first)",
        ]
    ).computations["main"]
    assert [one.name for one in computation.parameters] == ["first", "second"]
    assert computation.root.name == "sum"
    assert [one.name for one in computation.users["first"]] == ["square", "after"]
    assert computation.users["sum"] == []


def times_of(program, opcode="add"):
    return {one.name: times for one, _, times in program.executed() if one.opcode == opcode}


BODY = ["%q.1 = (s32[]) parameter(0)", "%in.body = f32[] add(%q.1, %q.1)"]
COMPARED = {
    "less": [
        "%bound = s32[]{:T(128)} constant(7)",
        "%one = s32[] constant(1)",  # the bound is the largest
        "%next = s32[] add(%q, %one)",
        "ROOT %c = pred[] compare(%next, %bound)",
    ],
    "fused": ["ROOT %c = pred[] fusion(%q), kind=kLoop, calls=%compare"],
}


@pytest.mark.parametrize("condition", COMPARED)
def test_without_a_known_count_the_condition_tells(condition):
    program = program_of(
        ["ROOT %loop = (s32[]) while(%start), condition=%until, body=%body"],
        compare=COMPARED["less"],
        until=["%q = (s32[]) parameter(0)", *COMPARED[condition]],
        body=BODY,
    )
    assert times_of(program) == {"in.body": 7}


def test_the_known_count_goes_before_the_condition():
    known = 'backend_config={"known_trip_count":{"n":"3"},"known_init_step":{"init":"4"}}'
    program = program_of(
        [f"ROOT %loop = (s32[]) while(%start), condition=%until, body=%body, {known}"],
        until=COMPARED["less"],
        body=BODY,
    )
    assert times_of(program)["in.body"] == 3


def test_a_loop_that_nothing_bounds_is_an_error_that_names_it():
    program = program_of(
        ["ROOT %endless.1 = (s32[]) while(%start), condition=%until, body=%body"],
        until=["ROOT %c = pred[] parameter(0)"],
        body=BODY,
    )
    with pytest.raises(ValueError, match="endless.1"):
        list(program.executed())


def test_what_is_called_runs_as_often_as_its_caller():
    two = 'backend_config={"known_trip_count":{"n":"2"}}'
    program = loop_of(
        [
            "%a0 = f32[] add(%p, %p)",
            "%c0 = f32[] call(%a0), to_apply=%helper",
            "%h0 = f32[] async-start(%a0), calls=%beside",
            "%h1 = f32[] async-done(%h0), calls=%beside",
            "%b0 = f32[] conditional(%i, %a0, %a0), branch_computations={%left, %right}",
            "%t0 = f32[] conditional(%i, %a0, %a0), true_computation=%yes, false_computation=%no",
            "%r0 = f32[] reduce(%a0, %a0), to_apply=%helper",
            "ROOT %f0 = f32[] fusion(%a0), kind=kLoop, calls=%fused",
        ],
        trips=5,
        helper=["ROOT %a1 = f32[] add(%p, %p)"],
        beside=["ROOT %a2 = f32[] add(%p, %p)"],
        left=["ROOT %a3 = f32[] add(%p, %p)"],
        right=[
            "%a4 = f32[] add(%p, %p)",
            f"ROOT %w = f32[] while(%a4), condition=%until, body=%deep, {two}",
        ],
        yes=["ROOT %a5 = f32[] add(%p, %p)"],
        no=["ROOT %a6 = f32[] add(%p, %p)"],
        deep=["ROOT %a7 = f32[] add(%p, %p)"],
        fused=["%a8 = f32[] add(%p, %p)", "ROOT %n = f32[] fusion(%a8), calls=%inner"],
        inner=["ROOT %a9 = f32[] add(%p, %p)"],
    )
    assert times_of(program) == {**{f"a{n}": 5 for n in range(7)}, "a7": 10}
    (fusion,) = [one for one, _, _ in program.executed() if one.opcode == "fusion"]
    assert [one.name for one, _ in program.inside(fusion)] == ["a8", "n", "a9"]
    assert list(program.inside(program.computations["main"].root)) == []


def products(program):
    """How often each product is run, by the length of what it sums over."""
    found = {}
    for one, computation, times in program.executed():
        for inner, around in ((one, computation), *program.inside(one)):
            if inner.opcode == "dot":
                length = around.instructions[inner.operands[0]].arrays[0].dims[-1]
                found[length] = found.get(length, 0) + times
    return found


def test_nested_scans_of_a_real_program():
    def inner(carry, _):
        return jnp.tanh(carry @ jnp.ones((16, 16))), None

    def outer(carry, weight):
        carry = jax.lax.scan(inner, jnp.tanh(carry @ weight), None, length=5)[0]
        return jnp.tanh(carry @ jnp.ones((16, 48))), None

    def run(start, weights):
        return jax.lax.scan(outer, start, weights)[0] @ jnp.ones((48, 24)) @ jnp.ones((24, 8))

    program = parse(compiled(run, (32, 48), (3, 48, 16)).as_text())
    # 16: five times within, once after; 48: once before, and the first after the loops.
    assert products(program) == {16: 3 * 5 + 3, 48: 3 + 1, 24: 1}


def test_branches_within_a_scan_of_a_real_program():
    def step(carry, weight):
        left, right = (lambda x: jnp.tanh(x @ weight), lambda x: jnp.sin(x @ weight) @ weight)
        return jax.lax.cond(carry[0, 0] > 0, left, right, carry), None

    run = lambda start, weights: jax.lax.scan(step, start, weights)[0]  # noqa: E731
    assert products(parse(compiled(run, (16, 16), (7, 16, 16)).as_text())) == {16: 7 * 3}


def test_a_loop_that_may_end_early_is_counted_in_full():
    def run(start):
        going = lambda state: (state[0] < 11) & (state[1].sum() < 1e9)  # noqa: E731
        step = lambda state: (state[0] + 1, state[1] @ state[1])  # noqa: E731
        return jax.lax.while_loop(going, step, (0, start))[1]

    assert products(parse(compiled(run, (16, 16)).as_text())) == {16: 11}


def test_a_real_loop_whose_length_is_an_argument_cannot_be_counted():
    run = lambda count, start: jax.lax.fori_loop(0, count, lambda _, x: x @ x, start)  # noqa: E731
    arguments = jax.ShapeDtypeStruct((), "int32"), jax.ShapeDtypeStruct((8, 8), "float32")
    program = parse(jax.jit(run).lower(*arguments).compile().as_text())
    with pytest.raises(ValueError, match="How often"):
        list(program.executed())


GARBAGE = {
    "nothing": "",
    "prose": "A program = of no kind (at all).\n}\n",
    "a header": "HloModule made, is_scheduled=true\n",
    "no entry": text_of(["ROOT %a = f32[] parameter(0)"]).replace("ENTRY ", ""),
    "an instruction without a bracket": text_of(["ROOT %a = f32[] parameter"]),
    "an instruction without an end": text_of(["ROOT %a = (f32[], f32[] tuple(%b"]),
    "StableHLO": "module @jit_f {\n  func.func public @main() {\n    return\n  }\n}\n",
}


@pytest.mark.parametrize("kind", GARBAGE)
def test_what_is_no_program_is_refused(kind):
    with pytest.raises(ValueError):
        parse(GARBAGE[kind])


def test_a_program_cut_off_anywhere_is_refused():
    lines = compiled(lambda x: jnp.tanh(x @ x), (8, 8)).as_text().splitlines()
    last = max(number for number, line in enumerate(lines) if line.startswith("}"))
    parse("\n".join(lines[: last + 1]))
    for end in range(last + 1):
        with pytest.raises(ValueError):
            parse("\n".join(lines[:end]))
