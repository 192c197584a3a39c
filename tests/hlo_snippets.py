"""XLA programs for the tests of planning: written by hand, or compiled for this CPU."""

import jax

from simvlm_jax.planning.hlo import parse

SUM = [
    "%x = f32[] parameter(0)",
    "%y = f32[] parameter(1)",
    "ROOT %s = f32[] add(%x, %y)",
]


def text_of(entry, **computations):
    """The text of a module whose computations are given as lines of instructions."""
    parts = ["HloModule made, is_scheduled=true"]
    for name, lines in {**computations, "main": entry}.items():
        head = f"%{name} (p: f32[]) -> f32[] {{"
        parts.append("\n".join(["ENTRY " + head if name == "main" else head, *indented(lines)]))
        parts[-1] += "\n}"
    return "\n\n".join(parts) + "\n"


def indented(lines):
    return [f"  {line}" for line in lines]


def program_of(entry, **computations):
    return parse(text_of(entry, **computations))


def loop_of(lines, trips, entry=(), **computations):
    """A program that runs some lines in a loop."""
    count = f'backend_config={{"known_trip_count":{{"n":"{trips}"}}}}'
    condition = ["%q = (s32[]) parameter(0)", "ROOT %less = pred[] constant(true)"]
    start = [
        "%zero = s32[] constant(0)",
        "%start = (s32[]) tuple(%zero)",
        f"ROOT %loop = (s32[]) while(%start), condition=%until, body=%body, {count}",
    ]
    return program_of([*entry, *start], until=condition, body=lines, **computations)


def compiled(function, *shapes, dtype="float32"):
    """A function compiled for arguments of some shapes."""
    arguments = [jax.ShapeDtypeStruct(shape, dtype) for shape in shapes]
    return jax.jit(function).lower(*arguments).compile()
