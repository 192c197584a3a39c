"""Transformer blocks and stacks of them, scanned or unrolled.

Dimension letters: B batch, R beams, T query tokens, S key tokens, D model width, L layers,
N heads, K head width, P image tokens.

Every method of a block that a stack runs over its layers has the shape
`(carry, per_layer, shared) -> (carry, result)`: `per_layer` has a leading layer axis outside and
none inside, `shared` is the same for all layers.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp

from simvlm_jax.models.attention import Attention, Keys
from simvlm_jax.models.config import SimVLMConfig
from simvlm_jax.models.layers import Dropout, Mlp, StochasticDepth, constrain, layer_rates, norm
from simvlm_jax.models.positions import ImageRelativeBias

REMAT = {
    "none": None,
    "dots": jax.checkpoint_policies.checkpoint_dots_with_no_batch_dims,
    "full": jax.checkpoint_policies.nothing_saveable,
}


class Surroundings(flax.struct.PyTreeNode):
    """What all layers of a stack see of a whole sequence.

    Attributes:
      mask: bool, broadcastable to [B, N, T, T]: True where self-attention may look.
      bias: None or float32 broadcastable to [B, N, T, T], from the text's relative positions.
      memory: None or [B, S, D], what cross-attention reads.
      memory_mask: None or bool broadcastable to [B, N, T, S].
      has_image: whether the first P tokens are image patches.
    """

    mask: jax.Array
    bias: jax.Array | None = None
    memory: jax.Array | None = None
    memory_mask: jax.Array | None = None
    has_image: bool = flax.struct.field(pytree_node=False, default=False)


class StepSurroundings(NamedTuple):
    """What all layers see while decoding one token per beam.

    Attributes:
      index: int32 scalar, position of the token in the cache.
      own_bias: None or float32 broadcastable to [B, N, R, T], among generated tokens.
      shared_mask: bool [B, S], which shared keys are real.
      shared_bias: None or float32 broadcastable to [B, N, R, S].
    """

    index: jax.Array
    own_bias: jax.Array | None
    shared_mask: jax.Array
    shared_bias: jax.Array | None


class Block(nn.Module):
    """Pre-norm self-attention, optional cross-attention, MLP."""

    config: SimVLMConfig
    style: str
    cross: bool
    has_image: bool
    stochastic_depth: bool

    def setup(self) -> None:
        """Makes the sub-layers."""
        config, style = self.config, self.style
        self.self_norm = norm(style, config.dtype)
        self.self_attention = Attention(config, style)
        if self.cross:
            self.cross_norm = norm(style, config.dtype)
            self.cross_attention = Attention(config, style)
        self.mlp_norm = norm(style, config.dtype)
        self.mlp = Mlp(config, style)
        self.dropout = Dropout(config.dropout_rate)
        self.branch_drop = StochasticDepth(self.stochastic_depth)
        if self.has_image:
            self.image_bias = ImageRelativeBias(config.heads, config.grid)

    def _bias(self, bias: jax.Array | None, tokens: int, with_image: bool) -> jax.Array | None:
        if not with_image:
            return bias
        extra = tokens - self.config.image_tokens
        image = jnp.pad(self.image_bias(), ((0, 0), (0, extra), (0, extra)))[None]
        return image if bias is None else image + bias

    def _residual(self, x: jax.Array, branch: jax.Array, rate: jax.Array) -> jax.Array:
        x = x + self.branch_drop(self.dropout(branch), rate)
        return constrain(x, "batch", "length", "embed")

    def full(self, x: jax.Array, rate: jax.Array, around: Surroundings):
        """One layer over a whole sequence.

        Args:
          x: [B, T, D].
          rate: scalar, this layer's stochastic-depth rate.
          around: masks, text bias and memory.

        Returns:
          x [B, T, D] and the self-attention's keys and values [B, T, N, K].
        """
        y = self.self_norm(x)
        keys, values = self.self_attention.keys_values(y)
        bias = self._bias(around.bias, x.shape[1], around.has_image)
        x = self._residual(x, self.self_attention(y, Keys(keys, values, around.mask, bias)), rate)
        if self.cross:
            y = self.cross_norm(x)
            memory = self.cross_attention.keys_values(around.memory)
            source = Keys(*memory, around.memory_mask)
            x = self._residual(x, self.cross_attention(y, source), rate)
        return self._residual(x, self.mlp(self.mlp_norm(x)), rate), (keys, values)

    def streams(self, xs, rate, arounds):
        """`full` over several sequences, without keys and values.

        One pass over the layers for all of them: weights that are cut over devices are gathered
        once a layer, not once a sequence.
        """
        pairs = zip(xs, arounds, strict=True)
        return tuple(self.full(x, rate, around)[0] for x, around in pairs), None

    def with_keys(self, x, rate, around):
        """`full`: x, and the keys and values for decoding after this prefix."""
        return self.full(x, rate, around)

    def memory_keys(self, carry, unused, memory: jax.Array):
        """Cross-attention keys and values of memory [B, S, D], computed once per sequence."""
        return carry, self.cross_attention.keys_values(memory)

    def step(self, x: jax.Array, caches, around: StepSurroundings):
        """One token per beam.

        Args:
          x: [B, R, D].
          caches: ((shared keys, values) [B, S, N, K], (own keys, values) [B, R, T, N, K]).
          around: index, masks and biases.

        Returns:
          x [B, R, D] and the own keys and values with this token written at `around.index`.
        """
        shared, own = caches
        y = self.self_norm(x)
        own = tuple(
            jax.lax.dynamic_update_slice_in_dim(cache, new[:, :, None], around.index, 2)
            for cache, new in zip(own, self.self_attention.keys_values(y), strict=True)
        )
        seen = jnp.arange(own[0].shape[2]) <= around.index
        own_keys = Keys(*own, seen, around.own_bias)
        shared_keys = Keys(*shared, around.shared_mask[:, None, None, :], around.shared_bias)
        prefix = None if self.cross else shared_keys
        x = x + self.self_attention.step(y, prefix, own_keys)
        if self.cross:
            x = x + self.cross_attention.step(self.cross_norm(x), shared_keys, None)
        return x + self.mlp(self.mlp_norm(x)), own


_METHODS = ("streams", "with_keys", "memory_keys", "step")


class Stack(nn.Module):
    """L blocks; parameters are stacked on a leading 'layers' axis when scanned."""

    config: SimVLMConfig
    style: str
    layers: int
    cross: bool
    has_image: bool
    stochastic_depth_rate: float = 0.0

    def setup(self) -> None:
        """Makes the blocks, or the one block that is scanned."""
        config = self.config
        block: Callable[..., Any] = Block
        if config.remat_policy != "none":
            block = nn.remat(
                block,
                policy=REMAT[config.remat_policy],
                prevent_cse=not config.scan_layers,
                methods=("streams",),
            )
        arguments = (
            config,
            self.style,
            self.cross,
            self.has_image,
            self.stochastic_depth_rate > 0,
        )
        if not config.scan_layers:
            self.layer = [block(*arguments) for _ in range(self.layers)]
            return
        lift = dict(
            variable_axes={"params": 0, "intermediates": 0},
            split_rngs={"params": True, "dropout": True},
            in_axes=(0, nn.broadcast),
            length=self.layers,
            metadata_params={nn.PARTITION_NAME: "layers"},
        )
        self.scanned = nn.scan(block, methods={name: lift for name in _METHODS})(*arguments)

    def _run(self, method: str, carry, per_layer, shared):
        if self.config.scan_layers:
            return getattr(self.scanned, method)(carry, per_layer, shared)
        results = []
        for i, layer in enumerate(self.layer):
            own = jax.tree.map(lambda leaf, i=i: leaf[i], per_layer)
            carry, result = getattr(layer, method)(carry, own, shared)
            results.append(result)
        return carry, jax.tree.map(lambda *leaves: jnp.stack(leaves), *results)

    def __call__(
        self, xs: tuple[jax.Array, ...], arounds: tuple[Surroundings, ...]
    ) -> tuple[jax.Array, ...]:
        """Runs all layers over whole sequences, several at once.

        Args:
          xs: each [B, T, D], of sizes of its own.
          arounds: masks, text bias and memory of each.

        Returns:
          Each [B, T, D].
        """
        return self._run("streams", xs, self._rates(), arounds)[0]

    def prefix_keys(self, x: jax.Array, around: Surroundings) -> tuple[jax.Array, jax.Array]:
        """Every layer's self-attention keys and values, each [L, B, T, N, K], of x [B, T, D]."""
        return self._run("with_keys", x, self._rates(), around)[1]

    def _rates(self) -> jax.Array:
        return jnp.asarray(layer_rates(self.stochastic_depth_rate, self.layers))

    def memory_keys(self, memory: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Every layer's cross-attention keys and values, each [L, B, S, N, K]."""
        unused = jnp.zeros(self.layers)
        return self._run("memory_keys", unused[0], unused, memory)[1]

    def step(self, x: jax.Array, shared, own, around: StepSurroundings):
        """One token per beam through all layers.

        Args:
          x: [B, R, D].
          shared: keys and values [L, B, S, N, K]: the memory's, or a decoder-only prefix's.
          own: keys and values [L, B, R, T, N, K] of the tokens generated so far.
          around: index, masks and biases.

        Returns:
          [B, R, D] and the updated `own`.
        """
        return self._run("step", x, (shared, own), around)
