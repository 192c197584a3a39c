"""A network without weights: its logits are hashes of the example's salt and the whole history.

It reads the history from its cache alone, so a cache that is reordered wrongly gives other logits.
"""

import jax
import jax.numpy as jnp
import numpy as np

from simvlm_jax import decoding


def mix(value):
    """An integer hash of uint32 that numpy and JAX compute alike."""
    value = (value ^ (value >> 16)) * np.uint32(0x7FEB352D)
    value = (value ^ (value >> 15)) * np.uint32(0x846CA68B)
    return value ^ (value >> 16)


def hash_logits(salt, history, vocabulary, xp):
    """Logits [..., V] in [-3, 3) of a history [..., n], uint32 throughout."""
    places = xp.arange(history.shape[-1], dtype=xp.uint32) * np.uint32(0x85EBCA6B)
    digest = mix(salt + mix(history.astype(xp.uint32) + places).sum(-1, dtype=xp.uint32))
    hashes = mix(digest[..., None] + xp.arange(vocabulary, dtype=xp.uint32) * np.uint32(0x9E3779B9))
    return (hashes >> 8).astype(xp.float32) / 2**24 * 6 - 3


def hash_network(vocabulary, count_steps=None):
    """A step whose cache keeps the history twice, in leaves of different rank."""

    def step(tokens, index, cache):
        if count_steps is not None:
            jax.debug.callback(lambda i: count_steps.append(int(i)), index)
        history = cache.beams["history"].at[:, :, :, index].set(tokens + 1)
        digest = mix(cache.beams["digest"] * 31 + tokens.astype(jnp.uint32) + 1)
        logits = hash_logits(cache.shared[:, None], history[0] + history[1], vocabulary, jnp)
        other = hash_logits(digest[0], history[0, :, :, :0], vocabulary, jnp)
        return logits + other, decoding.Cache(None, {"history": history, "digest": digest})

    return step


def hash_cache(salts, beams, length):
    batch = len(salts)
    return decoding.Cache(
        shared=jnp.asarray(salts, jnp.uint32),
        beams={
            "history": jnp.zeros((2, batch, beams, length), jnp.int32),
            "digest": jnp.zeros((1, batch, beams), jnp.uint32),
        },
    )


def reference_log_probabilities(salt, prefix, vocabulary, length):
    """Float64 [V] of the same network from the tokens alone."""
    history = np.zeros(length, np.int64)
    digest = np.zeros(1, np.uint32)
    for position, token in enumerate([0, *prefix]):
        history[position] = 2 * (int(token) + 1)
        digest = mix(digest * 31 + np.uint32(token) + 1)
    logits = hash_logits(np.uint32([salt]), history[None], vocabulary, np)
    logits = logits + hash_logits(digest, history[None, :0], vocabulary, np)
    logits = logits[0].astype(np.float64)
    return logits - np.log(np.exp(logits).sum())
