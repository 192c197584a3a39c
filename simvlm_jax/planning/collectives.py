"""What the devices of a compiled step send one another: by kind, and over which network.

n devices of a group, b bytes of the whole result (all-gather) or operand (the others); what one
device sends, by the algorithms that send least:

    all-gather, reduce-scatter, all-to-all   b (n - 1) / n
    all-reduce                              2b (n - 1) / n
    collective-permute                       b
"""

import dataclasses
import math
import re
from collections.abc import Iterator, Sequence

import numpy as np

from simvlm_jax.planning.hlo import Computation, Instruction, Program

KINDS = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")
_CHANNEL = re.compile(r"channel_id=(\d+)")
_LISTS = re.compile(r"replica_groups=\{(\{[\d,{}]*\})\}")
_IOTA = re.compile(r"replica_groups=(\[[\d,]+\]<=\[[\d,]+\](?:T\([\d,]+\))?)")
_MESH = re.compile(
    r"replica_groups=mesh\[([^\]]*)\]"
    r"(?:, device_ids=\((\[[\d,]+\](?:T\([\d,]+\))?|[\d,]+)\))? \{([^}]*)\}"
)
_AXIS = re.compile(r"'?([\w.\-]+)'?(?::\((\d+)\)(\d+))?'?")  # a name, and which part of the axis
_PAIRS = re.compile(r"source_target_pairs=\{(\{[\d,{}]*\})\}")
_MEGASCALE = re.compile(
    r'_xla_megascale_target="\{([\d,]+)\}[^"]*",_xla_megascale_transfer_type="(\w+)"'
)
_SHARED_CHANNEL = 1  # what XLA gives collectives that it makes late; not a name


@dataclasses.dataclass(frozen=True)
class Collective:
    """One collective of a program.

    Attributes:
      kind: one of `KINDS`.
      bytes_sent: by each device, each time.
      times: how often a step runs it.
      group: devices of one group, by their place in the mesh's order; of a permutation, one of
        its pairs.
      dtype: of what is sent.
      pairs: all (from, to) of a permutation.
    """

    kind: str
    bytes_sent: float
    times: int
    group: tuple[int, ...]
    dtype: str
    pairs: tuple[tuple[int, ...], ...] = ()


def collectives(program: Program, devices: int) -> Iterator[Collective]:
    """Yields every collective of a program once.

    One that overlaps with other work stands in several fusions, with one channel: it counts once,
    and as often as the rarest of them runs (it may be carried through a loop).

    Args:
      program: the compiled step.
      devices: how many run it.
    """
    found: dict[tuple[str, str], Collective] = {}
    for one, computation, times in program.executed():
        for inner, around in ((one, computation), *program.inside(one)):
            kind = inner.opcode.removesuffix("-start")
            if kind == "send" and (between := _between_slices(inner, devices, times)):
                found["between slices", inner.name] = between
            if kind not in KINDS:
                continue
            channel = _CHANNEL.search(inner.text)
            number = int(channel[1]) if channel else _SHARED_CHANNEL
            name = inner.name if number == _SHARED_CHANNEL else str(number)
            before = found.get((kind, name))
            if before and before.times <= times:
                continue
            key = (kind, name)
            if kind == "all-reduce" and inner is not one and _only_sliced(inner, around):
                kind = "reduce-scatter"
            sent, group, dtype = _sent(inner, around, kind, devices)
            if len(set(group)) > 1:
                ways = _ways(inner) if kind == "collective-permute" else ()
                found[key] = Collective(kind, sent, times, group, dtype, ways)
    yield from found.values()


def _between_slices(one: Instruction, devices: int, times: int) -> Collective | None:
    """What TPU slices exchange stands as a sending to the host, with its meaning in attributes."""
    meaning = _MEGASCALE.search(one.text)
    if not meaning:
        return None
    slices = len(meaning[1].split(","))
    kind = meaning[2].lower().replace("_", "-")
    share = (slices - 1) / slices
    # Whatever else is exchanged, each device sends its array to every other slice.
    factor = (
        2 * share if kind == "all-reduce" else share if kind == "reduce-scatter" else slices - 1
    )
    group = tuple(range(0, devices, devices // slices))
    return Collective(kind, factor * one.arrays[0].packed, times, group, one.arrays[0].dtype)


def _only_sliced(one: Instruction, computation: Computation) -> bool:
    """Whether an all-reduce within a fusion is sliced at once: TPU's reduce-scatter."""
    users = list(computation.users[one.name])
    if users and all(user.opcode == "get-tuple-element" for user in users):
        users = [reader for user in users for reader in computation.users[user.name]]
    return bool(users) and all(user.opcode == "dynamic-slice" for user in users)


def _sent(
    one: Instruction, computation: Computation, kind: str, devices: int
) -> tuple[float, tuple[int, ...], str]:
    operands = [computation.instructions[name] for name in one.operands]
    arrays = [array for operand in operands for array in operand.arrays]
    whole = sum(array.packed for array in arrays)
    dtype = arrays[0].dtype
    if kind == "collective-permute":
        return whole, _ways(one)[0], dtype
    group = groups_of(one.text, devices)[0]
    size = len(group)
    share = (size - 1) / size
    if kind == "all-gather":
        return whole * (size - 1), tuple(group), dtype
    return whole * share * (2 if kind == "all-reduce" else 1), tuple(group), dtype


def groups_of(text: str, devices: int) -> list[list[int]]:
    """The groups of a collective, in any of the three ways that XLA writes them.

    Examples, for 4 devices: "replica_groups={{0,1},{2,3}}", "replica_groups=[2,2]<=[4]" and
    "replica_groups=mesh['a'=2,'b'=2] {'b'}" are all [[0, 1], [2, 3]].
    """
    lists = _LISTS.search(text)
    if lists:
        return _number_lists(lists[1])
    iota = _IOTA.search(text)
    if iota:
        return _iota(iota[1]).tolist()
    mesh = _MESH.search(text)
    return _mesh(*mesh.groups()) if mesh else [list(range(devices))]


def _mesh(axes: str, order: str | None, grouped: str) -> list[list[int]]:
    """Reads groups as in "mesh['a'=4,'b'=2] {'a':(1)2,'b'}": the outer half of a, and b."""
    sizes = {name: int(size) for name, size in re.findall(r"'?([\w.\-]+)'?=(\d+)", axes)}
    parts = [
        (name, int(before or 1), int(size or sizes[name]))
        for name, before, size in _AXIS.findall(grouped)
    ]
    # Every axis is cut wherever a part of it begins or ends; then a part is whole pieces.
    pieces = []
    for name, size in sizes.items():
        ends = {1, size}
        for each, before, length in parts:
            ends |= {before, before * length} if each == name else set()
        ends = sorted(ends) if size > 1 else [1, 1]
        pieces += [(name, start, end) for start, end in zip(ends, ends[1:], strict=False)]
    moved = [
        number
        for name, before, length in parts
        for number, (each, start, end) in enumerate(pieces)
        if each == name and before <= start and end <= before * length
    ]
    cut = [end // start for _, start, end in pieces]
    ids = _order(order) if order else np.arange(math.prod(sizes.values()))
    array = np.moveaxis(ids.reshape(cut), moved, range(-len(moved), 0))
    return array.reshape(-1, math.prod(cut[number] for number in moved)).tolist()


def _iota(text: str) -> np.ndarray:
    """Reads groups as in "[2,2]<=[4]T(0)"."""
    shape, _, order = text.partition("<=")
    return _order(order).reshape([int(n) for n in shape.strip("[]").split(",")])


def _order(text: str) -> np.ndarray:
    """Numbers from 0 in the order of "[16,16]T(1,0)": counted, then transposed; or a list."""
    if not text.startswith("["):
        return np.array([int(n) for n in text.split(",")])
    sizes, _, axes = text.partition("T")
    dims = [int(n) for n in sizes.strip("[]").split(",")]
    array = np.arange(math.prod(dims)).reshape(dims)
    return array.transpose([int(n) for n in axes.strip("()").split(",")]) if axes else array


def _ways(one: Instruction) -> tuple[tuple[int, ...], ...]:
    """From where to where a permutation sends; what stays where it is is left out."""
    pairs = [tuple(pair) for pair in _number_lists(_PAIRS.search(one.text)[1])]
    return tuple(pair for pair in pairs if pair[0] != pair[1]) or ((0, 0),)


def _number_lists(text: str) -> list[list[int]]:
    """Reads "{0,1},{2,3}" as [[0, 1], [2, 3]]."""
    return [[int(n) for n in part.split(",")] for part in re.findall(r"\{([\d,]+)\}", text)]


def by_kind(found: Sequence[Collective]) -> dict[str, float]:
    """Bytes that one device sends in a step, by kind."""
    totals: dict[str, float] = {}
    for one in found:
        totals[one.kind] = totals.get(one.kind, 0.0) + one.bytes_sent * one.times
    return totals
