"""Norms, projections, MLP and dropout: what both block styles are made of.

Dimension letters: B batch, T tokens, D model width, F hidden width of the MLP.
"""

import functools
from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from simvlm_jax.models.config import SimVLMConfig


def named(initializer: nn.initializers.Initializer, names: Sequence[str]):
    """The initializer with one logical axis name per dimension of what it makes."""
    return nn.with_logical_partitioning(initializer, tuple(names))


def constrain(x: jax.Array, *names: str | None) -> jax.Array:
    """Fixes where an activation lies, by the rules of whoever traces the network; else a no-op.

    Without it the compiler may choose to cut activations by their width, as parameters are cut,
    and to reduce them after every matrix product.

    Args:
      x: any activation.
      names: one logical axis name per dimension, None for one that is never cut.
    """
    rules = nn.get_logical_axis_rules()
    if not rules:
        return x
    # Not nn.with_logical_constraint: it ignores the mesh of a `with mesh:`, which T5X uses too.
    known = {name for name, _ in rules}
    axes = nn.logical_to_mesh_axes([name if name in known else None for name in names], rules)
    return jax.lax.with_sharding_constraint(x, axes)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def gathered(kernel: jax.Array, names: tuple[str, str]) -> jax.Array:
    """A kernel in the compute dtype, put together from the devices that it is cut over.

    What only tensor parallelism cuts stays cut. The backward pass keeps the whole kernel for as
    long as it recomputes the layer, so that it is not gathered a second time.

    Args:
      kernel: [in, out].
      names: its logical axes.
    """
    # "heads" are cut for tensor parallelism alone; hidden units may be cut to save memory too.
    whole = {"embed": None, "mlp": "heads"}
    return constrain(kernel, *(whole.get(name, name) for name in names))


def _gathered_backward(names: tuple[str, str], _: None, gradient: jax.Array) -> tuple[jax.Array]:
    return (constrain(gradient, *names),)


gathered.defvjp(lambda kernel, names: (gathered(kernel, names), None), _gathered_backward)


def dense(
    features: int,
    names: tuple[str, str],
    style: str,
    dtype: str,
    name: str | None = None,
    kernel_init: nn.initializers.Initializer = nn.initializers.xavier_uniform(),  # noqa: B008
):
    """A projection [..., in] -> [..., features]; T5's have no bias, others one that starts at zero.

    Args:
      features: output width.
      names: logical axes of the kernel, (in, out).
      style: 'vit' or 't5'.
      dtype: dtype of the product.
      name: module name when it is made inside a compact method.
      kernel_init: how the kernel starts.
    """
    return nn.Dense(
        features,
        use_bias=style == "vit",
        dtype=dtype,
        kernel_init=named(kernel_init, names),
        bias_init=named(nn.initializers.zeros_init(), names[1:]),
        dot_general=lambda x, kernel, *how, **options: jax.lax.dot_general(
            x, gathered(kernel, names), *how, **options
        ),
        name=name,
    )


def norm(style: str, dtype: str, name: str | None = None) -> nn.Module:
    """LayerNorm ('vit') or RMSNorm ('t5') over the last axis; statistics are in float32."""
    scale = named(nn.initializers.ones_init(), ("embed",))
    if style == "t5":
        return nn.RMSNorm(dtype=dtype, scale_init=scale, name=name)
    bias = named(nn.initializers.zeros_init(), ("embed",))
    return nn.LayerNorm(dtype=dtype, scale_init=scale, bias_init=bias, name=name)


class Dropout(nn.Module):
    """Dropout that is active exactly when the caller gave a 'dropout' random key."""

    rate: float

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Drops elements of x (any shape) and rescales the rest."""
        return nn.Dropout(self.rate, deterministic=not self.has_rng("dropout"))(x)


class StochasticDepth(nn.Module):
    """Drops a whole residual branch per example (paper section 4.1; Huang et al. 2016)."""

    enabled: bool

    @nn.compact
    def __call__(self, branch: jax.Array, rate: jax.Array | float) -> jax.Array:
        """Zeroes the branch of some examples and rescales the others.

        Args:
          branch: [B, ...] output of a residual branch.
          rate: probability of dropping; may be a traced scalar (it differs between layers).
        """
        if not self.enabled or not self.has_rng("dropout"):
            return branch
        keep = 1.0 - jnp.asarray(rate, jnp.float32)
        shape = (branch.shape[0],) + (1,) * (branch.ndim - 1)
        kept = jax.random.bernoulli(self.make_rng("dropout"), keep, shape)
        return branch * (kept / keep).astype(branch.dtype)


def layer_rates(last: float, layers: int) -> list[float]:
    """Stochastic-depth rates of consecutive layers, 0 at the first and `last` at the last.

    Example: layer_rates(0.1, 3) == [0.0, 0.05, 0.1].
    """
    return [last * i / max(layers - 1, 1) for i in range(layers)]


class Mlp(nn.Module):
    """[B, T, D] -> [B, T, D] through F hidden units: GELU ('vit') or gated GELU ('t5')."""

    config: SimVLMConfig
    style: str

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Applies the MLP to x [B, T, D]."""
        config = self.config
        hidden = ("embed", "mlp")
        y = dense(config.mlp_width, hidden, self.style, config.dtype, "in")(x)
        y = constrain(y, "batch", "length", "mlp")
        y = nn.gelu(y)  # the tanh form, as in JAX's ViT and in T5 1.1
        if self.style == "t5":
            y = y * dense(config.mlp_width, hidden, self.style, config.dtype, "gate")(x)
        return dense(config.width, ("mlp", "embed"), self.style, config.dtype, "out")(y)
