"""Carries parameters over to another image size (paper section 4.1: finetuning at up to 480).

Dimension letters: H W grid rows and columns, P = H * W image tokens, D model width, N heads,
L layers.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from simvlm_jax.errors import UserError
from simvlm_jax.models.config import SimVLMConfig

Grid = tuple[int, int]


def resize_grid(table: jax.Array, grid: Grid) -> jax.Array:
    """Bilinear interpolation of the last two axes: [..., H, W] -> [..., *grid].

    Values sit at pixel centres, so the middle of a table stays its middle: offset (0, 0) of a
    relative table is mapped onto offset (0, 0). Going down it samples, without a smoothing
    filter. Same size: the same array.

    Example: [0, 2] over one axis of size 4 becomes [0, 0.5, 1.5, 2].
    """
    if table.shape[-2:] == tuple(grid):
        return table
    shape = (*table.shape[:-2], *grid)
    return jax.image.resize(table, shape, method="linear", antialias=False)


def resize_image_parameters(params: Any, old: SimVLMConfig, new: SimVLMConfig) -> dict[str, Any]:
    """Interpolates everything that depends on the grid of image tokens.

    That is the image position table, read as a picture of H x W positions, and every layer's
    relative bias table of (2H-1) x (2W-1) offsets. All other parameters are passed on.

    Args:
      params: nested dictionaries of the network's parameters for `old`, scanned or unrolled.
      old: the configuration that the parameters were trained with.
      new: the configuration to be used from now on; only its grid is read.

    Returns:
      Parameters for `new`; the very same arrays where the grid does not change.

    Raises:
      UserError: the parameters do not have the old grid's shapes.
    """

    def visit(node: Mapping[str, Any], inside: str) -> dict[str, Any]:
        result = {}
        for name, value in node.items():
            if isinstance(value, Mapping):
                result[name] = visit(value, name)
            elif name == "image_positions":
                result[name] = _resize_positions(value, old.grid, new.grid)
            elif (inside, name) == ("image_bias", "table"):
                result[name] = _resize_offsets(value, old.grid, new.grid)
            else:
                result[name] = value
        return result

    return visit(params, "")


def _resize_positions(table: jax.Array, old: Grid, new: Grid) -> jax.Array:
    """[P, D] -> [P', D]."""
    _check("image position table", table.shape[:1], (old[0] * old[1],), old)
    if old == new:
        return table
    pictures = jnp.moveaxis(table.reshape(*old, -1), -1, 0)
    return jnp.moveaxis(resize_grid(pictures, new), 0, -1).reshape(new[0] * new[1], -1)


def _resize_offsets(table: jax.Array, old: Grid, new: Grid) -> jax.Array:
    """[..., N, 2H-1, 2W-1] -> [..., N, 2H'-1, 2W'-1]."""
    _check("relative bias table", table.shape[-2:], (2 * old[0] - 1, 2 * old[1] - 1), old)
    return resize_grid(table, (2 * new[0] - 1, 2 * new[1] - 1))


def _check(what: str, found: tuple[int, ...], expected: tuple[int, ...], grid: Grid) -> None:
    if found != expected:
        raise UserError(
            f"The parameters' {what} has size {found}, but the old grid of {grid} image tokens "
            f"needs {expected}; pass the configuration that the parameters were trained with."
        )
