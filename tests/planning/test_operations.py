"""Operations of products, against sums done by hand and against XLA where it has no loops."""

import itertools
import math
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax

from hlo_snippets import compiled, loop_of, program_of
from simvlm_jax.planning.costs import operations
from simvlm_jax.planning.hlo import parse


def counted(function, *shapes, **options):
    return operations(parse(compiled(function, *shapes, **options).as_text()))


EINSUMS = {
    "ab,bc->ac": dict(a=33, b=20, c=7),
    "bhqd,bhkd->bhqk": dict(b=2, h=3, q=16, k=20, d=8),
    "bqhd,bkhd->bhqk": dict(b=2, h=3, q=16, k=20, d=8),
    "btm,mhd->bthd": dict(b=2, t=9, m=24, h=3, d=8),
    "abc,dcb->ad": dict(a=5, b=6, c=7, d=8),
}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("equation", EINSUMS)
def test_a_product_takes_two_operations_for_every_choice_of_indices(equation, dtype):
    sizes = EINSUMS[equation]
    shapes = [[sizes[i] for i in side] for side in equation.split("->")[0].split(",")]
    found = counted(lambda x, y: jnp.einsum(equation, x, y), *shapes, dtype=dtype)
    assert found == 2 * math.prod(sizes.values())


def test_matrix_times_vector():
    assert counted(jnp.dot, (64, 96), (96,)) == 2 * 64 * 96


def network(x, first, second):
    hidden = jnp.tanh(x @ first)
    return jnp.sum((hidden @ second) ** 2)


LOOPLESS = {
    "two layers": (network, (128, 96), (96, 384), (384, 80)),
    "their gradient": (jax.grad(network, (0, 1, 2)), (128, 96), (96, 384), (384, 80)),
    "attention": (jax.nn.dot_product_attention, (2, 64, 4, 128), (2, 64, 4, 128), (2, 64, 4, 128)),
    "convolution": (
        lambda x, k: lax.conv(x, k, (2, 2), "SAME"), (2, 16, 30, 31), (24, 16, 5, 5),
    ),
    "its gradient": (
        jax.grad(lambda x, k: (lax.conv(x, k, (2, 2), "SAME") ** 2).sum(), (0, 1)),
        (2, 16, 30, 31), (24, 16, 5, 5),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", LOOPLESS)
def test_without_loops_xla_counts_the_same_to_two_percent(name):
    program = compiled(*LOOPLESS[name])
    theirs = program.cost_analysis()["flops"]  # with what is done element by element
    assert 0.98 * theirs <= operations(parse(program.as_text())) <= theirs


@pytest.mark.parametrize("backward", [False, True])
def test_a_scan_counts_as_its_loop_written_out(backward):
    def run(unroll):
        def function(start, weights):
            step = lambda carry, weight: (jnp.tanh(carry @ weight), None)  # noqa: E731
            return lax.scan(step, start, weights, unroll=unroll)[0].sum()

        chosen = jax.grad(function, (0, 1)) if backward else function
        text = compiled(chosen, (8, 32), (7, 32, 32)).as_text()
        assert (" while(" in text) != unroll
        return operations(parse(text))

    assert run(False) == run(True) == 2 * 8 * 32 * 32 * 7 * (3 if backward else 1)


def meetings(length, taps, stride, low, high, dilation=1, spread=1):
    """Elements under the taps of a window that is moved over a padded row of ones."""
    row = np.zeros((length - 1) * dilation + 1, int)
    row[::dilation] = 1
    row = np.pad(row, (low, high))
    width = (taps - 1) * spread + 1
    starts = range(0, len(row) - width + 1, stride)
    return sum(row[s : s + width : spread].sum() for s in starts), len(starts)


def same(length, taps, stride):
    """Padding before and after a row under TensorFlow's rule "SAME"."""
    missing = max((-(-length // stride) - 1) * stride + taps - length, 0)
    return missing // 2, missing - missing // 2


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [(15, 14), (8, 9)])
@pytest.mark.parametrize("taps", [1, 3, 7])
def test_convolutions_and_their_gradients_skip_the_padding(size, taps, stride):
    def convolve(x, kernel):
        names = ("NHWC", "HWIO", "NHWC")
        return lax.conv_general_dilated(x, kernel, (stride, stride), "SAME", None, None, names)

    once = 2 * 2 * 3 * 8  # two operations, two images, channels in and out
    for length in size:
        once *= meetings(length, taps, stride, *same(length, taps, stride))[0]
    shapes = (2, *size, 3), (taps, taps, 3, 8)
    assert counted(convolve, *shapes) == once
    # The square's derivative needs the result: three products in all.
    loss = jax.grad(lambda x, kernel: (convolve(x, kernel) ** 2).sum(), (0, 1))
    assert counted(loss, *shapes) == 3 * once


def test_a_convolution_by_channel_has_one_channel_in():
    def convolve(x, kernel):
        names = ("NHWC", "HWIO", "NHWC")
        return lax.conv_general_dilated(
            x, kernel, (1, 1), "SAME", None, None, names, feature_group_count=8
        )

    rows, columns = (meetings(length, 3, 1, 1, 1)[0] for length in (15, 14))
    assert counted(convolve, (2, 15, 14, 8), (3, 3, 1, 8)) == 2 * 2 * 8 * rows * columns


def convolution(left, right, result, labels, window=""):
    window = f"window={{{window}}}, " if window else ""
    return [
        f"%left = bf16[{left}]{{1,0:T(8,128)(2,1)}} parameter(0)",
        f"%right = bf16[{right}]{{1,0:T(8,128)(2,1)}} parameter(1)",
        f"ROOT %product = bf16[{result}]{{1,0:T(8,128)(2,1)S(1)}} convolution(%left, %right), "
        f'{window}dim_labels={labels}, metadata={{op_name="window={{size=9}}"}}',
    ]


# Products as TPU programs write them, and what each is.
PRODUCTS = {
    "bf_io->bf": (("4,5", "5,6", "4,6"), "", 4 * 5 * 6),
    "fb_io->bf": (("5,4", "5,6", "4,6"), "", 4 * 5 * 6),
    "bf_oi->bf": (("4,5", "6,5", "4,6"), "", 4 * 5 * 6),
    "b0f_0io->b0f": (("4,7,5", "1,5,6", "4,7,6"), "size=1", 4 * 7 * 5 * 6),
    "0bf_io0->0bf": (("7,4,5", "5,6,1", "7,4,6"), "size=1", 7 * 4 * 5 * 6),
    # The places are summed over: the gradient of a kernel.
    "0fb_0io->bf0": (("7,5,4", "7,5,6", "4,6,1"), "size=7", 7 * 4 * 5 * 6),
    # One product for each of 16, by a window that meets one element at each place.
    "0bf_0io->0bf": (("16,4,5", "16,5,6", "16,4,6"), "size=16 stride=15 lhs_dilate=16",
                     16 * 4 * 5 * 6),
    "01bf_01io->01bf": (("2,16,4,5", "2,16,5,6", "2,16,4,6"),
                        "size=2x16 stride=1x15 lhs_dilate=2x16", 2 * 16 * 4 * 5 * 6),
    "0bf_0oi->0bf": (("16,4,5", "16,6,5", "16,4,6"), "size=16 pad=15_15 rhs_reversal=1",
                     16 * 16 * 4 * 5 * 6),
}  # fmt: skip
# In that last but one, the first axis has stride 1 over a row 1 0 1 under two taps: places 0
# and 1 meet one element each.


@pytest.mark.parametrize("labels", PRODUCTS)
def test_products_that_tpu_programs_write_as_convolutions(labels):
    shapes, window, multiplications = PRODUCTS[labels]
    if "pad=15_15" in window:
        shapes = (shapes[0], shapes[1], "31,4,6")  # every tap meets every element once
    program = program_of(convolution(*shapes, labels, window))
    assert operations(program) == 2 * multiplications


@settings(max_examples=200, deadline=None)
@given(
    length=st.integers(1, 9), taps=st.integers(1, 9), stride=st.integers(1, 4),
    low=st.integers(0, 5), high=st.integers(0, 5), dilation=st.integers(1, 4),
    spread=st.integers(1, 3),
)  # fmt: skip
def test_any_window_multiplies_what_lies_under_its_taps(**window):
    pairs, places = meetings(**window)
    if not places:
        return
    w = window
    fields = f"size={w['taps']} stride={w['stride']} pad={w['low']}_{w['high']} "
    fields += f"lhs_dilate={w['dilation']} rhs_dilate={w['spread']}"
    shapes = f"2,{w['length']},3", f"{w['taps']},3,5", f"2,{places},5"
    program = program_of(convolution(*shapes, "b0f_0io->b0f", fields))
    assert operations(program) == 2 * 2 * 3 * 5 * pairs


def test_padding_below_zero_cuts_a_row():
    program = program_of(convolution("1,8,3", "3,3,5", "1,4,5", "b0f_0io->b0f", "size=3 pad=-1_-1"))
    assert operations(program) == 2 * 3 * 5 * 3 * 4


def test_two_axes_are_counted_each_by_its_own_window():
    window = "size=3x5 stride=2x1 pad=0_1x2_2 lhs_dilate=1x2"
    rows, columns = meetings(6, 3, 2, 0, 1), meetings(4, 5, 1, 2, 2, dilation=2)
    result = f"2,{rows[1]},{columns[1]},7"
    lines = convolution("2,6,4,3", "3,5,3,7", result, "b01f_01io->b01f", window)
    brute = sum(
        1
        for row, column, down, right in itertools.product(
            range(rows[1]), range(columns[1]), range(3), range(5)
        )
        if row * 2 + down < 6
        and (column + right - 2) % 2 == 0
        and 0 <= (column + right - 2) // 2 < 4
    )
    assert brute == rows[0] * columns[0]
    assert operations(program_of(lines)) == 2 * 2 * 3 * 7 * brute


def test_products_in_fusions_within_fusions_run_as_often_as_the_loop():
    product = convolution("4,5", "5,6", "4,6", "bf_io->bf")
    inner = ["ROOT %f = bf16[4,6]{1,0} fusion(%p, %q), kind=kOutput, calls=%product"]
    body = ["ROOT %g = bf16[4,6]{1,0} fusion(%p, %q), kind=kLoop, calls=%outer"]
    program = loop_of(body, trips=9, outer=inner, product=product)
    assert operations(program) == 9 * 2 * 4 * 5 * 6


def test_a_window_of_thousands_is_counted_at_once():
    fields = "size=4096 stride=4095 lhs_dilate=4096"
    program = program_of(convolution("4096,4,5", "4096,5,6", "4096,4,6", "0bf_0io->0bf", fields))
    start = time.perf_counter()
    assert operations(program) == 2 * 4096 * 4 * 5 * 6
    assert time.perf_counter() - start < 5


def library_call(result, operands, target, attributes="", config=""):
    lines = [f"%p{i} = {shape} parameter({i})" for i, shape in enumerate(operands)]
    names = ", ".join(f"%p{i}" for i in range(len(operands)))
    call = f"({result}, s8[64]{{0}}) custom-call({names})"
    tail = f'{attributes}, custom_call_target="{target}", backend_config={{{config}}}'
    return operations(program_of([*lines, f"ROOT %call = {call}{tail}"]))


def test_matrix_products_of_cublas():
    dims = '"lhs_contracting_dimensions":["2"],"rhs_contracting_dimensions":["1"]'
    config = f'"gemm_backend_config":{{"dot_dimension_numbers":{{{dims}}}}}'
    shapes = ["bf16[3,4,5]{2,1,0}", "bf16[3,5,7]{2,1,0}"]
    found = library_call("bf16[3,4,7]{2,1,0}", shapes, "__cublas$lt$matmul", "", config)
    assert found == 2 * 3 * 4 * 5 * 7


@pytest.mark.parametrize(
    ("target", "result", "operands"),
    [
        ("__cudnn$convForward", "{y}", ("{x}", "{w}")),
        ("__cudnn$convBackwardInput", "{x}", ("{y}", "{w}")),
        ("__cudnn$convBackwardFilter", "{w}", ("{x}", "{y}")),
    ],
)
def test_convolutions_of_cudnn_cost_the_same_in_every_direction(target, result, operands):
    """3 x 3 over 6 x 6 with padding: 16 of the 18 taps of a row lie inside, in both axes."""
    shapes = {
        "x": "bf16[2,6,6,3]{3,2,1,0}",
        "w": "bf16[5,3,3,3]{3,2,1,0}",
        "y": "bf16[2,6,6,5]{3,2,1,0}",
    }
    labels = ", window={size=3x3 pad=1_1x1_1}, dim_labels=b01f_o01i->b01f"
    filled = [part.format(**shapes) for part in operands]
    found = library_call(result.format(**shapes), filled, target, labels)
    assert found == 2 * 2 * 3 * 5 * 16 * 16


def test_other_libraries_multiply_nothing():
    assert library_call("f32[4]{0}", ["f32[4]{0}"], "__cub$DeviceRadixSort") == 0
