"""Turns parameters of scanned stacks into those of unrolled stacks, and back.

`config.scan_layers` decides how a stack keeps its layers, L of them: 'scanned' holds every
parameter once with a leading axis of size L, or 'layer_0' to 'layer_<L-1>' hold one layer each.
A checkpoint of one kind becomes one of the other here, without a change in any number.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from simvlm_jax.errors import UserError

SCANNED = "scanned"
_LAYER = re.compile(r"layer_(\d+)")


def unscan(tree: Any) -> Any:
    """Splits every 'scanned' entry into 'layer_0', 'layer_1' and so on.

    Example: {"encoder": {"scanned": {"kernel": [2, 8, 8]}}} becomes
    {"encoder": {"layer_0": {"kernel": [8, 8]}, "layer_1": {"kernel": [8, 8]}}}.

    Args:
      tree: parameters, or any pytree with dictionaries shaped like them in it (gradients, an
        optimizer's state).

    Returns:
      The same tree with dictionaries in the unrolled layout.

    Raises:
      UserError: the leaves of a 'scanned' entry do not share one leading size.
    """
    return _over_dictionaries(_split_layers, tree)


def scan(tree: Any) -> Any:
    """Stacks 'layer_0', 'layer_1' and so on into one 'scanned' entry; undoes `unscan`.

    Args:
      tree: as for `unscan`, in the unrolled layout.

    Returns:
      The same tree with dictionaries in the scanned layout.

    Raises:
      UserError: a layer is missing, or two layers differ in structure or shapes.
    """
    return _over_dictionaries(_stack_layers, tree)


def _over_dictionaries(change: Callable[[dict], dict], tree: Any) -> Any:
    """Applies `change` to every dictionary of a pytree, innermost first."""

    def visit(node: Any) -> Any:
        if not isinstance(node, Mapping):
            return node
        return change({name: _over_dictionaries(change, value) for name, value in node.items()})

    return jax.tree.map(visit, tree, is_leaf=lambda node: isinstance(node, Mapping))


def _split_layers(entries: dict[str, Any]) -> dict[str, Any]:
    if SCANNED not in entries:
        return entries
    stacked = entries.pop(SCANNED)
    sizes = {np.shape(leaf)[:1] for leaf in jax.tree.leaves(stacked)}
    if len(sizes) != 1 or sizes == {()}:
        found = ", ".join(sorted(str(size) for size in sizes)) or "no array at all"
        raise UserError(
            f"A '{SCANNED}' entry needs arrays of one leading size, the number of layers; this "
            f"one has {found}, so it is not in the scanned layout."
        )
    (layers,) = sizes.pop()
    for i in range(layers):
        entries[f"layer_{i}"] = jax.tree.map(lambda leaf, i=i: leaf[i], stacked)
    return entries


def _stack_layers(entries: dict[str, Any]) -> dict[str, Any]:
    numbers = sorted(int(m[1]) for m in map(_LAYER.fullmatch, entries) if m)
    if not numbers:
        return entries
    if numbers != list(range(len(numbers))):
        missing = min(set(range(numbers[-1])) - set(numbers))
        raise UserError(f"Layer 'layer_{missing}' of a stack is missing; its layers are {numbers}.")
    layers = [entries.pop(f"layer_{i}") for i in numbers]
    try:
        entries[SCANNED] = jax.tree.map(_stack, *layers)
    except ValueError as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise UserError(f"The layers of a stack do not fit one another: {reason}.") from None
    return entries


def _stack(*leaves: Any) -> Any:
    # NumPy arrays stay what they are: a checkpoint can be converted without a device.
    on_host = all(isinstance(leaf, np.ndarray | np.generic) for leaf in leaves)
    return (np if on_host else jnp).stack(leaves)
