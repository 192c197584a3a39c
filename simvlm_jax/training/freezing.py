"""Parameters that a run leaves as they are, bit for bit, chosen by patterns over their paths."""

import functools
import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from simvlm_jax.errors import UserError
from simvlm_jax.training import digests


class PartialOptimizer(NamedTuple):
    """An optax transform that gives some parameters neither updates nor state.

    Attributes:
        init: As of `optax.GradientTransformation`.
        update: Likewise.
        inner: The transform of all other parameters; it sees nothing of the frozen ones.
        patterns: Regular expressions; a parameter is frozen if one matches its whole path.
    """

    init: Callable
    update: Callable
    inner: optax.GradientTransformation
    patterns: tuple[str, ...]


def freeze(
    optimizer: optax.GradientTransformation | PartialOptimizer, patterns: Sequence[str]
) -> optax.GradientTransformation | PartialOptimizer:
    """Freezes parameters; to freeze the same ones again changes nothing.

    Example: 'encoder/.*' is the whole encoder, '.*/bias' every bias, '(?!classifier/).*' all but
    the classifier.

    Args:
        optimizer: Any optax transform. Nothing may stand around the result: what counts batches or
            averages parameters belongs inside.
        patterns: Regular expressions over paths such as 'encoder/scanned/mlp/in/kernel'.

    Returns:
        The transform itself if there is no pattern. Else one that raises a `UserError` as soon as
        it is shown parameters of which a pattern matches none, or all are frozen.

    Raises:
        UserError: If a pattern is no regular expression.
    """
    if isinstance(patterns, str):
        raise UserError(f"frozen={patterns!r} must be a list of patterns: [{patterns!r}].")
    if isinstance(optimizer, PartialOptimizer):
        patterns, optimizer = (*optimizer.patterns, *patterns), optimizer.inner
    patterns = tuple(dict.fromkeys(patterns))
    if not patterns:
        return optimizer
    for pattern in patterns:
        _compiled(pattern)
    trained = functools.partial(_trained, patterns=patterns)
    masked = optax.masked(optimizer, trained)

    def update(updates: Any, state: Any, params: Any = None) -> tuple:
        updates, state = masked.update(updates, state, params)
        # Not 0: added to -0 it would change a bit.
        keep = lambda train, leaf: leaf if train else jnp.full_like(leaf, -0.0)  # noqa: E731
        return jax.tree.map(keep, trained(updates), updates), state

    return PartialOptimizer(masked.init, update, optimizer, patterns)


def for_model(optimizer: Any, model: Any) -> Any:
    """Freezes what a model says that it does not train, the patterns in its `frozen`, if any."""
    return freeze(optimizer, getattr(model, "frozen", ()))


def hold(optimizer: Any, params: Any) -> Any:
    """Takes the frozen parameters out of differentiation, and with them their backward pass."""
    if not isinstance(optimizer, PartialOptimizer):
        return params
    trained = _trained(params, optimizer.patterns)
    stop = lambda train, leaf: leaf if train else jax.lax.stop_gradient(leaf)  # noqa: E731
    return jax.tree.map(stop, trained, params)


def describe(optimizer: Any, model: Any, params: Any) -> list[str]:
    """Says in a line what is frozen by either; in none if nothing is.

    Args:
        optimizer: Any optax transform.
        model: May offer `frozen`.
        params: Arrays or their shapes.
    """
    optimizer = for_model(optimizer, model)
    if not isinstance(optimizer, PartialOptimizer):
        return []
    trained = digests.paths(_trained(params, optimizer.patterns))
    sizes = {path: leaf.size for path, leaf in digests.paths(params).items()}
    frozen = [path for path in sizes if not trained[path]]
    parts = dict.fromkeys(path.split("/")[0] for path in frozen)
    return [
        f"frozen: {len(frozen)} of {len(sizes)} arrays, {sum(sizes[p] for p in frozen):,} of "
        f"{sum(sizes.values()):,} parameters, in {', '.join(parts)}"
    ]


def _trained(params: Any, patterns: Sequence[str]) -> Any:
    """A tree like the parameters with a bool at every leaf: False where a pattern matches.

    Raises:
        UserError: If a pattern matches nothing, or nothing would be trained.
    """
    paths = list(digests.paths(params))
    found = {p: {path for path in paths if _compiled(p).fullmatch(path)} for p in patterns}
    for pattern, matched in found.items():
        if not matched:
            raise UserError(
                f"The pattern {pattern!r} of what is frozen matches no parameter's path, such as "
                f"{paths[0]}: correct it or leave it out."
            )
    frozen = set.union(*found.values())
    if len(frozen) == len(paths):
        raise UserError(
            f"The patterns {', '.join(map(repr, patterns))} freeze every parameter, so that "
            "nothing is trained: leave one out."
        )
    return jax.tree_util.tree_map_with_path(
        lambda path, _: digests.name(path) not in frozen, params
    )


@functools.cache
def _compiled(pattern: str) -> re.Pattern:
    try:
        return re.compile(pattern)
    except (re.error, TypeError) as error:
        raise UserError(
            f"The pattern {pattern!r} of what is frozen is no regular expression: {error}."
        ) from None
