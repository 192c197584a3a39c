"""Reads the text of a compiled XLA program: computations, instructions, how often each runs.

XLA's own cost analysis counts the body of a loop once. Here every instruction comes with the
number of times that a step runs it.
"""

import dataclasses
import functools
import math
import re
from collections.abc import Iterator

BYTES = {
    "pred": 1, "s4": 0.5, "u4": 0.5, "s8": 1, "u8": 1, "s16": 2, "u16": 2, "bf16": 2, "f16": 2,
    "s32": 4, "u32": 4, "f32": 4, "s64": 8, "u64": 8, "f64": 8, "c64": 8, "c128": 16,
    "s2": 0.25, "u2": 0.25, "f4e2m1fn": 0.5, "f8e3m4": 1, "f8e4m3": 1, "f8e4m3fn": 1,
    "f8e4m3fnuz": 1, "f8e4m3b11fnuz": 1, "f8e5m2": 1, "f8e5m2fnuz": 1, "f8e8m0fnu": 1,
    "token": 0, "opaque": 0,
}  # fmt: skip
_ARRAY = re.compile(r"([a-z]\w*)\[([\d,]*)\](?:\{([^{}]*)\})?")
_SPACE = re.compile(r"S\((\d+)\)")
_TILE = re.compile(r":T\((\d+(?:,\d+)*)\)")
_NAME = re.compile(r"%([\w.\-]+)")
_CALLED = re.compile(r"\b(calls|to_apply|body|condition|called_computations)=\{?%?([\w.\-]+)")
# A conditional on a truth value names its two, one on a number lists them.
_BRANCHES = re.compile(
    r"\b(?:branch_computations=\{([^}]*)\}|(?:true|false)_computation=(%[\w.\-]+))"
)
_HEAD = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\) -> .* \{$")
_KNOWN_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"')
_CONSTANT = re.compile(r"\bs32\[\]\S* constant\((\d+)\)")


@dataclasses.dataclass(frozen=True)
class Array:
    """One array of a shape.

    Attributes:
      dtype: XLA's name of it, such as "bf16".
      dims: its sizes.
      space: memory space; 0 is the device's main memory, others are on the chip.
      order: its dimensions from the one whose neighbours lie together outwards.
      tile: by what the last of those, and the one before, are rounded up in memory.
    """

    dtype: str
    dims: tuple[int, ...]
    space: int = 0
    order: tuple[int, ...] = ()
    tile: tuple[int, ...] = ()

    @property
    def packed(self) -> float:
        """Its bytes without any padding."""
        return math.prod(self.dims) * BYTES.get(self.dtype, 4)

    @property
    def bytes(self) -> float:
        """Its bytes in memory, the padding of tiles included."""
        sizes = [self.dims[axis] for axis in self.order] or list(self.dims)
        for position, unit in enumerate(reversed(self.tile)):
            if position < len(sizes):
                sizes[position] = -(-sizes[position] // unit) * unit
        return math.prod(sizes) * BYTES.get(self.dtype, 4)


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One line of a program.

    Attributes:
      name: unique in the program.
      arrays: what it gives; several for a tuple.
      opcode: "fusion", "convolution", "while" and so on.
      operands: names of instructions of the same computation.
      text: the whole line.
      is_root: whether the computation gives this.
    """

    name: str
    arrays: tuple[Array, ...]
    opcode: str
    operands: tuple[str, ...]
    text: str
    is_root: bool

    @functools.cached_property
    def called(self) -> dict[str, str]:
        """Computations it names, by the attribute that does: "calls", "body", "condition"."""
        return {match[1]: match[2] for match in _CALLED.finditer(self.attributes)}

    @functools.cached_property
    def attributes(self) -> str:
        """What stands after the operands, without the source's metadata."""
        return self.text.split(", metadata=")[0] + self.text.partition("backend_config=")[2]

    @functools.cached_property
    def branches(self) -> tuple[str, ...]:
        """The computations of a conditional."""
        found = " ".join("".join(pair) for pair in _BRANCHES.findall(self.attributes))
        return tuple(_NAME.findall(found))

    @property
    def bytes(self) -> float:
        """Of all arrays it gives."""
        return sum(array.bytes for array in self.arrays)


@dataclasses.dataclass
class Computation:
    """Instructions in order, by name."""

    instructions: dict[str, Instruction]

    @functools.cached_property
    def root(self) -> Instruction:
        """What the computation gives."""
        return next(one for one in self.instructions.values() if one.is_root)

    @functools.cached_property
    def users(self) -> dict[str, list[Instruction]]:
        """Who reads each instruction."""
        found: dict[str, list[Instruction]] = {name: [] for name in self.instructions}
        for one in self.instructions.values():
            for operand in set(one.operands):
                found.setdefault(operand, []).append(one)
        return found

    @functools.cached_property
    def parameters(self) -> list[Instruction]:
        """Its parameters, in the order of their numbers."""
        found = [one for one in self.instructions.values() if one.opcode == "parameter"]
        return sorted(found, key=lambda one: int(re.search(r"parameter\((\d+)\)", one.text)[1]))


@dataclasses.dataclass
class Program:
    """All computations of a compiled module, and which one is run."""

    computations: dict[str, Computation]
    entry: str

    def trips(self, loop: Instruction) -> int:
        """How often a loop's body runs: as XLA notes it, or as its condition compares.

        A loop that may end early (decoding) is counted in full.

        Raises:
          ValueError: neither tells.
        """
        known = _KNOWN_TRIPS.search(loop.text)
        if known:
            return int(known[1])
        limits = []
        waiting = [loop.called["condition"]]
        while waiting:
            for one in self.computations[waiting.pop()].instructions.values():
                limits += [int(number) for number in _CONSTANT.findall(one.text)]
                waiting += one.called.values()
        if not limits:
            raise ValueError(f"How often the loop {loop.name} runs cannot be read.")
        return max(limits)

    def executed(self) -> Iterator[tuple[Instruction, Computation, int]]:
        """Yields every instruction that a device runs, its computation, and how often it runs.

        A fusion is one instruction; its inner computation is not entered. Of a conditional every
        branch counts.
        """
        waiting = [(self.entry, 1)]
        while waiting:
            name, times = waiting.pop()
            computation = self.computations[name]
            for one in computation.instructions.values():
                yield one, computation, times
                if one.opcode == "while":
                    waiting.append((one.called["body"], times * self.trips(one)))
                elif one.opcode in ("call", "async-start") and one.called:
                    waiting += [(inner, times) for inner in one.called.values()]
                elif one.opcode == "conditional":
                    waiting += [(inner, times) for inner in one.branches]

    def inside(self, one: Instruction) -> Iterator[tuple[Instruction, Computation]]:
        """Yields what a fusion is made of, fusions within it included; or the instruction."""
        if one.opcode != "fusion":
            return
        computation = self.computations[one.called["calls"]]
        for inner in computation.instructions.values():
            yield inner, computation
            yield from self.inside(inner)


def parse(text: str) -> Program:
    """Reads what `compiled.as_text()` gives.

    Raises:
      ValueError: it is no XLA program, or not all of one.
    """
    computations: dict[str, Computation] = {}
    entry, current = "", None
    for line in text.splitlines():
        if current is None:
            head = _HEAD.match(line)
            if head:
                current = computations[head[2]] = Computation({})
                entry = head[2] if head[1] else entry
        elif line.startswith("}"):
            current = None
        elif " = " in line:
            one = _instruction(line)
            current.instructions[one.name] = one
    if not entry or current is not None:
        raise ValueError("The text is not a compiled XLA program.")
    return Program(computations, entry)


def _instruction(line: str) -> Instruction:
    left, _, right = line.strip().partition(" = ")
    shape_end = _closing(right, 0) + 1 if right.startswith("(") else right.index(" ")
    shape, rest = right[:shape_end], right[shape_end:].lstrip()
    opening = rest.index("(")
    closing = _closing(rest, opening)
    return Instruction(
        left.removeprefix("ROOT ").lstrip("%"),
        tuple(arrays_of(shape)),
        rest[:opening],
        tuple(_NAME.findall(rest[opening:closing])),
        line,
        left.startswith("ROOT "),
    )


def _closing(text: str, opening: int) -> int:
    """Where the bracket that opens at `opening` is closed."""
    depth = 0
    for match in re.compile(r"[()]").finditer(text, opening):
        depth += 1 if match[0] == "(" else -1
        if not depth:
            return match.start()
    raise ValueError(f"A bracket is not closed: {text[:80]}")


def arrays_of(shape: str) -> Iterator[Array]:
    """The arrays of a shape, for example "(f32[2,3]{1,0:T(8,128)S(1)}, s32[])"."""
    for dtype, dims, layout in _ARRAY.findall(shape):
        order, _, _ = layout.partition(":")
        space, tile = _SPACE.search(layout), _TILE.search(layout)
        yield Array(
            dtype,
            _numbers(dims),
            int(space[1]) if space else 0,
            _numbers(order),
            _numbers(tile[1]) if tile else (),
        )


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(number) for number in text.split(",") if number.isdecimal())
