"""What a compiled step costs a device: operations, bytes of memory, bytes on the wire.

All counts are of one device and one step, loops multiplied by their trips.
"""

import functools
import math
import re
from collections.abc import Sequence

import numpy as np

from simvlm_jax.planning.collectives import KINDS
from simvlm_jax.planning.hlo import Array, Computation, Instruction, Program

_LABELS = re.compile(r"dim_labels=(\w+)_(\w+)->(\w+)")
_WINDOW = re.compile(r"window=\{([^}]*)\}")
_TARGET = re.compile(r'custom_call_target="([^"]*)"')
_LIBRARY_CONTRACTED = re.compile(r'"lhs_contracting_dimensions":\[([^\]]*)\]')
_CONTRACTED = re.compile(r"lhs_contracting_dims=\{([\d,]*)\}")
_FREE = {
    "parameter", "constant", "tuple", "get-tuple-element", "bitcast", "while", "call",
    "conditional", "after-all", "partition-id", "replica-id", "async-start", "opt-barrier",
    "iota", "domain",
}  # fmt: skip
_NO_WORK = ("AllocateBuffer", "ConcatBitcast", "Sharding", "SPMD", "AssumeGatherIndicesInBound")
_DONE = "AsyncCollectiveDone"  # the fusion that awaits a collective ends with it
_ALIASES = re.compile(r"output_to_operand_aliasing=\{(\{.*?\))\}")
_SLICES = ("dynamic-slice", "slice", "gather")


def operations(program: Program) -> float:
    """Floating-point operations of all products: two per multiply and add.

    What rematerialisation repeats is counted, and so is what the compiler does for padding of its
    own; a product with a position that a dilated window skips is not.
    """
    total = 0.0
    for one, computation, times in program.executed():
        total += times * _operations_of(one, computation)
        for inner, around in program.inside(one):
            total += times * _operations_of(inner, around)
    return total


def _operations_of(one: Instruction, computation: Computation) -> float:
    if one.opcode == "dot":
        (left,) = computation.instructions[one.operands[0]].arrays
        axes = [int(n) for n in _CONTRACTED.search(one.text)[1].split(",") if n]
        return 2.0 * math.prod(one.arrays[0].dims) * math.prod(left.dims[a] for a in axes)
    if one.opcode == "convolution":
        inputs, kernel = (computation.instructions[name].arrays[0] for name in one.operands[:2])
        return _convolution(one, inputs, kernel, one.arrays[0])
    if one.opcode == "custom-call":
        return _of_library(one, computation)
    return 0.0


def _of_library(one: Instruction, computation: Computation) -> float:
    """Products that a GPU's libraries compute: cuBLAS and cuDNN."""
    target = _target(one)
    operands = [computation.instructions[name].arrays[0] for name in one.operands[:2]]
    result = one.arrays[0]
    if target.startswith("__cublas"):
        axes = re.findall(r"\d+", _LIBRARY_CONTRACTED.search(one.text)[1])
        return 2.0 * math.prod(result.dims) * math.prod(operands[0].dims[int(a)] for a in axes)
    # Whatever is asked for, labels and window are those of the forward convolution.
    if target == "__cudnn$convForward":
        return _convolution(one, *operands, result)
    if target == "__cudnn$convBackwardInput":
        return _convolution(one, result, operands[1], operands[0])
    if target == "__cudnn$convBackwardFilter":
        return _convolution(one, operands[0], result, operands[1])
    return 0.0


def _convolution(one: Instruction, inputs: Array, kernel: Array, result: Array) -> float:
    """TPU programs write matrix products as convolutions too."""
    input_labels, kernel_labels, result_labels = _LABELS.search(one.text).groups()
    window = _window(one.attributes)
    pairs = 1
    for axis, size in enumerate(window.get("size", ())):
        places = result.dims[result_labels.index(str(axis))]
        length = inputs.dims[input_labels.index(str(axis))]
        pairs *= _pairs(axis, size, places, length, window)
    outside = [d for d, label in zip(result.dims, result_labels, strict=True) if label in "bf"]
    return 2.0 * math.prod(outside) * kernel.dims[kernel_labels.index("i")] * pairs


def _window(text: str) -> dict[str, list]:
    found = _WINDOW.search(text)
    fields = dict(field.split("=") for field in found[1].split()) if found else {}
    numbers = {
        name: [int(n) for n in fields[name].split("x")]
        for name in ("size", "stride", "lhs_dilate", "rhs_dilate")
        if name in fields
    }
    if "pad" in fields:
        numbers["pad"] = [
            tuple(int(n) for n in pair.split("_")) for pair in fields["pad"].split("x")
        ]
    return numbers


def _pairs(axis: int, size: int, places: int, length: int, window: dict) -> int:
    """Products along one axis of a window: those with padding or a dilation's gap fall away."""
    get = lambda name, default: window[name][axis] if name in window else default  # noqa: E731
    (low, _) = get("pad", (0, 0))
    dilations = get("lhs_dilate", 1), get("rhs_dilate", 1)
    return _inside(size, places, length, get("stride", 1), low, *dilations)


@functools.lru_cache(maxsize=4096)
def _inside(
    size: int, places: int, length: int, stride: int, low: int, dilation: int, spread: int
) -> int:
    """How many of `size` taps at `places` places meet an element of `length`."""
    if size > places:  # symmetric: the shorter of the two is the one to loop over
        size, places, spread, stride = places, size, stride, spread
    starts = np.arange(places) * stride - low
    count = 0
    for tap in range(size):
        positions = starts + tap * spread
        inside = (positions >= 0) & (positions < length * dilation)
        count += int(np.count_nonzero(inside & (positions % dilation == 0)))
    return count


def memory_bytes(program: Program) -> float:
    """Bytes read from and written to the device's main memory, padding of tiles included.

    Every instruction reads its operands and writes its result once, except what lies in memory on
    the chip. Of an operand that is only sliced, what the slices take counts; of a result that is
    an update in place, the update. A collective that runs beside other work stands in the fusions
    of that work too, and its arrays are handed through them: it counts where it starts.
    """
    total = 0.0
    for one, computation, times in program.executed():
        if one.opcode in _FREE or one.opcode.endswith(("-done", "-update")):
            continue
        if _target(one).startswith(_NO_WORK):
            continue
        total += times * (_read(program, one, computation) + _written(program, one, computation))
    return total


def _target(one: Instruction) -> str:
    found = _TARGET.search(one.text) if one.opcode == "custom-call" else None
    return found[1] if found else ""


def _main(arrays: tuple[Array, ...]) -> float:
    return sum(array.bytes for array in arrays if array.space == 0)


def _read(program: Program, one: Instruction, computation: Computation) -> float:
    operands = [computation.instructions.get(name) for name in one.operands]
    if one.opcode in _SLICES:
        # What is taken out of the first, and the indices.
        first = operands[0].arrays[0].space == 0
        return first * one.bytes + sum(_main(o.arrays) for o in operands[1:] if o)
    if one.opcode == "slice-start":
        return _slice_start(one)
    if one.opcode == "copy-start":
        return _main(one.arrays[1:2])
    if one.opcode == "dynamic-update-slice":
        return sum(_main(o.arrays) for o in operands[1:] if o)
    if one.opcode != "fusion":
        return sum(_main(o.arrays) for o in operands if o)
    inner = program.computations[one.called["calls"]]
    waits = _under_way(one, inner)
    return sum(
        _read_inside(program, inner, parameter.name, _main(operand.arrays), waits)
        for operand, parameter in zip(operands, inner.parameters, strict=False)
        if operand and operand.arrays and operand.arrays[0].space == 0
    )


def _read_inside(
    program: Program, inner: Computation, name: str, whole: float, waits: frozenset[str]
) -> float:
    """Bytes of a fusion's operand that it reads: all, unless it only slices or updates it."""
    total = 0.0
    for user in inner.users.get(name, []):
        if user.opcode == "bitcast":
            total += _read_inside(program, inner, user.name, whole, waits)
        elif user.opcode in _SLICES and user.operands[0] == name:
            total += user.bytes
        elif user.opcode == "dynamic-update-slice" and name not in user.operands[1:]:
            continue  # written in place
        elif user.name in waits or _target(user) == _DONE:
            continue  # read where the collective started
        elif user.opcode == "tuple" and user.is_root:
            continue  # handed through
        elif user.opcode == "fusion":
            nested = program.computations[user.called["calls"]]
            for operand, parameter in zip(user.operands, nested.parameters, strict=False):
                if operand == name:
                    total += _read_inside(program, nested, parameter.name, whole, frozenset())
        else:
            return whole
    return min(total, whole)


def _under_way(one: Instruction, inner: Computation) -> frozenset[str]:
    """Collectives within a fusion that another fusion has started."""
    found = {name for name, each in inner.instructions.items() if each.opcode in KINDS}
    if _target(inner.root) == _DONE:
        return frozenset(found)
    results, aliased = _results(inner), _aliased(one)
    return frozenset(found & {results[index] for index in aliased if index < len(results)})


def _aliased(one: Instruction) -> frozenset[int]:
    """Numbers of a fusion's results that are kept where one of its operands lies."""
    found = _ALIASES.search(one.text)
    numbers = re.findall(r"\{(\d*)\}: \(", found[1]) if found else []
    return frozenset(int(number or 0) for number in numbers)


def _slice_start(one: Instruction) -> float:
    """An asynchronous slice gives ((operands), result, ...): it reads what the result holds."""
    source, result = one.arrays[0], one.arrays[1]
    return result.bytes if source.space == 0 else 0.0


def _written(program: Program, one: Instruction, computation: Computation) -> float:
    if one.opcode == "copy-start":
        return _main(one.arrays[:1])
    if one.opcode == "slice-start":
        return _main(one.arrays[1:2])
    if one.opcode == "dynamic-update-slice":
        update = computation.instructions[one.operands[1]]
        return update.bytes if one.arrays[0].space == 0 else 0.0
    if one.opcode == "fusion":
        return _written_by_fusion(program, one)
    if one.opcode.endswith("-start"):
        return _main(_results_of_start(one, computation))
    return _main(one.arrays)


def _results_of_start(one: Instruction, computation: Computation) -> tuple[Array, ...]:
    """Of what an asynchronous instruction gives: (operands, results, its own notes)."""
    count = sum(len(computation.instructions[name].arrays) for name in one.operands)
    return one.arrays[count : 2 * count] or one.arrays  # all-reduce-start gives results alone


def _written_by_fusion(program: Program, one: Instruction) -> float:
    inner = program.computations[one.called["calls"]]
    if _target(inner.root) == _DONE:
        return 0.0
    results, waits, aliased = _results(inner), _under_way(one, inner), _aliased(one)
    if len(results) != len(one.arrays):  # one instruction gives them all
        pairs = enumerate(one.arrays)
        return _main(tuple(array for number, array in pairs if number not in aliased))
    return sum(
        _update_bytes(program, inner, name, array)
        for name, array in zip(results, one.arrays, strict=True)
        if array.space == 0 and name not in waits
    )


def _results(inner: Computation) -> Sequence[str]:
    root = inner.root
    return root.operands if root.opcode == "tuple" else (root.name,)


def _update_bytes(program: Program, inner: Computation, name: str, array: Array) -> float:
    """Bytes that one result of a fusion writes: an update in place writes the update alone."""
    one = inner.instructions[name]
    while one.opcode == "bitcast":
        one = inner.instructions[one.operands[0]]
    if one.opcode == "parameter":
        return 0.0  # handed through
    if one.opcode == "dynamic-update-slice":
        return inner.instructions[one.operands[1]].bytes
    if one.opcode == "fusion":
        nested = program.computations[one.called["calls"]]
        if nested.root.opcode != "tuple":
            return _update_bytes(program, nested, nested.root.name, array)
    return array.bytes
