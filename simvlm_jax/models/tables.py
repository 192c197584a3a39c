"""A network's parameters as a text table, made from shapes alone: nothing is allocated."""

import math
from collections.abc import Iterator
from typing import NamedTuple

import flax.linen as nn
import jax

from simvlm_jax.models.config import SimVLMConfig
from simvlm_jax.models.simvlm import SimVLM


class Row(NamedTuple):
    """One parameter.

    Attributes:
      path: names from the top, joined by '/'.
      shape: its shape.
      axes: logical axis names, one per dimension.
      count: number of elements.
    """

    path: str
    shape: tuple[int, ...]
    axes: tuple[str, ...]
    count: int


def parameter_rows(config: SimVLMConfig, network: SimVLM | None = None) -> list[Row]:
    """All parameters in the order of their paths, of `SimVLM` or of a network made of it."""
    network = network or SimVLM(config)
    boxed = jax.eval_shape(network.initial_parameters, jax.random.key(0))
    paths = jax.tree_util.tree_leaves_with_path(boxed, is_leaf=_is_box)
    rows = []
    for keys, box in paths:
        shape = box.value.shape
        path = "/".join(key.key for key in keys)
        rows.append(Row(path, shape, tuple(box.names), math.prod(shape)))
    return rows


def _is_box(node: object) -> bool:
    return isinstance(node, nn.meta.AxisMetadata)


def part_totals(rows: list[Row]) -> dict[str, int]:
    """Elements of each part of the network: the first name of a parameter's path."""
    totals: dict[str, int] = {}
    for row in rows:
        part = row.path.split("/")[0]
        totals[part] = totals.get(part, 0) + row.count
    return totals


def parameter_table(config: SimVLMConfig, network: SimVLM | None = None) -> str:
    """One line per parameter (path, shape, logical axes, count), then parts and total.

    Args:
      config: the network; with `scan_layers` one line stands for all layers of a stack.
      network: a classifier's; by default `SimVLM`.

    Returns:
      Text of aligned columns that ends in a newline.
    """
    rows = parameter_rows(config, network)
    totals = part_totals(rows)
    lines = [("parameter", "shape", "axes", "count")]
    for row in rows:
        lines.append((row.path, _product(row.shape), ", ".join(row.axes), f"{row.count:,}"))
    summary = [(part, f"{count:,}") for part, count in totals.items()]
    summary.append(("total", f"{sum(totals.values()):,}"))
    return "\n".join([*_align(lines), "", *_align(summary)]) + "\n"


def _product(shape: tuple[int, ...]) -> str:
    return " x ".join(str(size) for size in shape)


def _align(lines: list[tuple[str, ...]]) -> Iterator[str]:
    """Columns padded to one width; the last, a count, is aligned to the right."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        *texts, count = zip(line, widths, strict=True)
        yield "  ".join([*(text.ljust(width) for text, width in texts), count[0].rjust(count[1])])
