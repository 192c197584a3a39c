"""Hostile bytes for every parser, and how much memory one may take for them."""

import contextlib
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st

MIB = 1 << 20
FEW = settings(max_examples=60, deadline=None)
SOME = settings(max_examples=150, deadline=None)
# What declared sizes become: zero, negative, far beyond any file.
NUMBERS = [bytes(8), b"\xff" * 8, b"\xff" * 7 + b"\x7f", b"\xff\xff\xff\x7f", (1 << 40).to_bytes(8)]
NUMBERS += [(1 << 40).to_bytes(8, "little"), b"99999999999"]


@st.composite
def damaged(draw, valid):
    """One of `valid`, cut, flipped, lengthened, doubled in parts, or with mad numbers."""
    content = bytearray(draw(st.sampled_from(valid)))
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, max(len(content) - 1, 0)))
        if draw(st.booleans()):  # the ends, where headers and footers are
            place = draw(st.sampled_from([place % 160, max(0, len(content) - 1 - place % 160)]))
        change = draw(st.integers(0, 6))
        if change == 0:
            del content[place:]
        elif change == 1:
            del content[place : place + draw(st.integers(1, 40))]
        elif change == 2:
            content[place:place] = content[: draw(st.integers(1, 600))]
        elif change == 3:
            number = draw(st.sampled_from(NUMBERS))
            content[place : place + len(number)] = number
        elif change == 4:
            content[place:place] = draw(st.binary(max_size=40))
        elif place < len(content):
            content[place] ^= draw(st.integers(1, 255))
    return bytes(content)


def bytes_like(*valid):
    """Damaged files, the whole ones, and bytes that have nothing to do with them."""
    return damaged(valid) | st.sampled_from(valid) | st.binary(max_size=300)


SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from([-1, 0, 1 << 31, 1 << 63, 10**30, "../..", "/etc/passwd", "\0", "\ud800"])
)
JSON_VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3)
    ),
    max_leaves=6,
)


@st.composite
def changed_json(draw, valid):
    """A JSON value like `valid`, with one to three of its parts replaced, dropped or added."""
    value = draw(st.just(valid)) if not isinstance(valid, dict | list) else _copy(valid)
    for _ in range(draw(st.integers(1, 3))):
        holder = value
        while isinstance(holder, dict | list) and holder:
            keys = list(holder) if isinstance(holder, dict) else range(len(holder))
            key = draw(st.sampled_from(keys))
            inner = holder[key]
            if not isinstance(inner, dict | list) or not inner or draw(st.booleans()):
                if draw(st.integers(0, 3)):
                    holder[key] = draw(JSON_VALUES)
                else:
                    del holder[key]
                break
            holder = inner
    return draw(JSON_VALUES) if draw(st.integers(0, 9)) == 0 else value


def _copy(value):
    if isinstance(value, dict):
        return {key: _copy(inner) for key, inner in value.items()}
    return [_copy(inner) for inner in value] if isinstance(value, list) else value


@contextlib.contextmanager
def at_most(mebibytes):
    """Fails where the block takes more memory, at its highest, than it may."""
    Path("/proc/self/clear_refs").write_text("5")  # the highest mark starts anew
    before = _resident("VmRSS")
    yield
    taken = (_resident("VmHWM") - before) / 1024
    assert taken <= mebibytes, f"{taken:.0f} MiB were taken, more than {mebibytes}"


def _resident(name):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))
