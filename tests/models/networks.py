"""The tiny networks of these tests, each compiled once however many tests call it."""

import functools

import jax
import numpy as np

from simvlm_jax import objectives
from simvlm_jax.models.simvlm import SimVLM
from simvlm_jax.testing import random_parameters, tiny_batch, tiny_config

# Cutting a small picture into patches compiles several times faster than the conv stage.
PATCHES = dict(conv_layers=(), image_size=(8, 12), patch_size=4)

PAPER = tiny_config()
FAMILIES = {
    "paper": PAPER,
    "t5": tiny_config(**PATCHES, encoder_style="t5", decoder_style="t5"),
    "t5_decoder": tiny_config(**PATCHES, decoder_style="t5"),
    "decoder_only": tiny_config(**PATCHES, decoder_only=True),
    "decoder_only_t5": tiny_config(**PATCHES, decoder_only=True, decoder_style="t5"),
    "causal": tiny_config(**PATCHES, decoder_only=True, bidirectional_prefix=False),
}
# Gradients take longest to compile: one layer on each side, one conv stage, both block styles.
SMALLEST = tiny_config(
    conv_layers=(1,),
    image_size=(16, 32),
    encoder_layers=1,
    decoder_layers=1,
    decoder_style="t5",
    scan_layers=False,
)


@functools.cache
def parameters(config):
    return random_parameters(config)


def batch_of(config, **changes):
    """A tiny batch whose leaves may be replaced."""
    return {**tiny_batch(config), **changes}


@functools.cache
def _forward(config):
    return jax.jit(SimVLM(config).apply)


def forward(config, batch, params=None):
    """Teacher-forced logits as NumPy, [B, T, V]."""
    params = parameters(config) if params is None else params
    inputs = [batch.get(name) for name in ("image", "encoder_input_tokens", "decoder_input_tokens")]
    return np.asarray(_forward(config)({"params": params}, *inputs))


@functools.cache
def _loss_and_gradient(config):
    def loss(params, batch):
        logits = SimVLM(config).apply(
            {"params": params},
            batch.get("image"),
            batch["encoder_input_tokens"],
            batch["decoder_input_tokens"],
        )
        targets, weights = batch["decoder_target_tokens"], batch["decoder_loss_weights"]
        return objectives.token_sums(logits, targets, weights).loss

    return jax.jit(jax.value_and_grad(loss))


def loss_and_gradient(config, batch, params=None):
    """Summed loss of a batch and its gradient as a NumPy tree."""
    params = parameters(config) if params is None else params
    loss, gradient = _loss_and_gradient(config)(params, batch)
    return float(loss), jax.tree.map(np.asarray, gradient)


def flat(tree):
    """{'encoder/scanned/...': leaf} of nested dictionaries."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {"/".join(key.key for key in path): leaf for path, leaf in leaves}


def primitives(function, *arguments):
    """Names of all primitives of a function's jaxpr, those of inner jaxprs included."""
    found = set()

    def visit(jaxpr):
        for equation in jaxpr.eqns:
            found.add(equation.primitive.name)
            for inner in jax.tree.leaves(list(equation.params.values()), is_leaf=_is_jaxpr):
                if _is_jaxpr(inner):
                    visit(getattr(inner, "jaxpr", inner))

    visit(jax.make_jaxpr(function)(*jax.tree.map(jax.numpy.asarray, arguments)).jaxpr)
    return found


def _is_jaxpr(node):
    return isinstance(node, jax.extend.core.ClosedJaxpr | jax.extend.core.Jaxpr)
