"""Greedy, sampled and beam decoding over a key-value cache; knows arrays and a step function only.

B batch, K hypotheses per example, T tokens at most, V vocabulary, L layers (a leaf's first axis).

All three share one contract. `step(tokens int32 [B, K], index int32 [], cache)` returns
`(logits [B, K, V], cache)`: the logits of generated position `index`, given the token at the
position before it (BOS at index 0). They return tokens int32 [B, K, T] and scores float32 [B, K],
best first; EOS belongs to its hypothesis (and to its length and score) and only zeros follow it.
A hypothesis that fills all T positions without EOS is a result like any other, of length T.

Scores are the model's own log probabilities (float32 log-softmax over the whole vocabulary,
temperature 1), so they can be compared with teacher-forced ones. Ids in `suppress`, and always
the pad, are never produced; their probability is not handed to the others.

Every function can be jitted; sizes, ids, `top_k`, `top_p` and `temperature` are Python numbers.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from simvlm_jax.errors import UserError

PAD_ID = 0


@flax.struct.dataclass
class Cache:
    """What the network keeps between steps.

    Attributes:
      shared: Pytree that is the same for all hypotheses of an example and constant over steps
        (cross-attention keys and values); what a step returns here is ignored.
      beams: Pytree whose every leaf is [L, B, K, ...]; beam search reorders axis 2 per example.
    """

    shared: Any
    beams: Any


MOST_BEAMS = 1024  # each keeps a cache of its own
WHOLE_SETTINGS, SETTINGS = ("beams", "top_k"), ("length_penalty", "temperature", "top_p")

Step = Callable[[jax.Array, jax.Array, Cache], tuple[jax.Array, Cache]]
Choose = Callable[[jax.Array, jax.Array], jax.Array]


def checked_settings(values: Mapping[str, Any]) -> dict[str, int | float]:
    """Returns settings of decoding that a file holds.

    Args:
      values: Some of them by name; anybody may have written them.

    Raises:
      UserError: One is not known, or is no number in its range.
    """
    for name, value in values.items():
        if name not in (*WHOLE_SETTINGS, *SETTINGS):
            raise UserError(f"The model configuration has the unknown decoding setting {name!r}.")
        least, most = (1, MOST_BEAMS) if name == "beams" else (-1000, 1 << 30)
        is_number = isinstance(value, int if name in WHOLE_SETTINGS else int | float)
        if isinstance(value, bool) or not is_number or not least <= value <= most:
            raise UserError(f"The decoding setting {name} is {value!r}, not in {least} to {most}.")
    return dict(values)


def greedy(
    step: Step,
    cache: Cache,
    batch_size: int,
    max_length: int,
    eos_id: int = 1,
    bos_id: int = 0,
    suppress: Sequence[int] = (),
) -> tuple[jax.Array, jax.Array]:
    """Takes the most probable token at every position (the lowest id among equals).

    Args:
      step: See the module's head; called with K = 1.
      cache: Cache with K = 1.
      batch_size: B.
      max_length: T, EOS included.
      eos_id: Ends a hypothesis.
      bos_id: Fed at index 0.
      suppress: Ids that are never produced, besides the pad.

    Returns:
      Tokens int32 [B, 1, T] and summed log probabilities float32 [B, 1].

    Raises:
      UserError: A size is below 1 or an id is outside the vocabulary.
    """

    def choose(log_probabilities: jax.Array, index: jax.Array) -> jax.Array:
        del index
        return jnp.argmax(log_probabilities, axis=-1)

    shape = (batch_size, 1, max_length)
    return _roll_out(step, cache, choose, shape, eos_id, bos_id, suppress)


def sample(
    step: Step,
    cache: Cache,
    batch_size: int,
    max_length: int,
    rng: jax.Array,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    samples: int = 1,
    eos_id: int = 1,
    bos_id: int = 0,
    suppress: Sequence[int] = (),
) -> tuple[jax.Array, jax.Array]:
    """Draws hypotheses independently, sorted by their probability under the model.

    The distribution is scaled by the temperature, cut to the `top_k` likeliest tokens, then to
    the nucleus: the fewest likeliest tokens whose renormalised mass reaches `top_p`. Example:
    probabilities (0.5, 0.3, 0.2) with `top_p=0.6` keep the first two, in the ratio 5 to 3.

    Args:
      step: See the module's head; called with K = `samples`.
      cache: Cache with K = `samples`.
      batch_size: B.
      max_length: T, EOS included.
      rng: PRNG key. A draw depends on the key, its example's row, its number and its position.
      temperature: Divides the log probabilities; 0 is greedy.
      top_k: Tokens to draw from; 0 is all of them.
      top_p: Mass to draw from, in (0, 1].
      samples: K, draws per example.
      eos_id: Ends a hypothesis.
      bos_id: Fed at index 0.
      suppress: Ids that are never produced, besides the pad.

    Returns:
      Tokens int32 [B, K, T] and summed log probabilities float32 [B, K].

    Raises:
      UserError: A size is below 1, an id is outside the vocabulary, or a sampling setting is
        outside its range.
    """
    if temperature < 0:
        raise UserError(f"temperature is {temperature}; give 0 (greedy) or more.")
    if top_k < 0:
        raise UserError(f"top_k is {top_k}; give 0 (all tokens) or more.")
    if not 0 < top_p <= 1:
        raise UserError(f"top_p is {top_p}; give a number above 0 and at most 1.")
    if temperature == 0:
        temperature, top_k = 1.0, 1

    def choose(log_probabilities: jax.Array, index: jax.Array) -> jax.Array:
        order, kept = _truncate(log_probabilities / temperature, top_k, top_p)
        rank = jax.random.categorical(jax.random.fold_in(rng, index), kept)
        return jnp.take_along_axis(order, rank[..., None], axis=-1)[..., 0]

    shape = (batch_size, samples, max_length)
    tokens, scores = _roll_out(step, cache, choose, shape, eos_id, bos_id, suppress)
    scores, order = jax.lax.top_k(scores, samples)
    return jnp.take_along_axis(tokens, order[..., None], axis=1), scores


def beam_search(
    step: Step,
    cache: Cache,
    batch_size: int,
    beams: int,
    max_length: int,
    length_penalty: float = 0.6,
    eos_id: int = 1,
    bos_id: int = 0,
    suppress: Sequence[int] = (),
) -> tuple[jax.Array, jax.Array]:
    """Keeps the `beams` likeliest unfinished hypotheses and the best finished ones.

    A score is the summed log probability over ((5 + length) / 6) ** length_penalty (GNMT, arXiv
    1609.08144, equation 14), EOS counted in the length. Of all extensions of the live beams, an
    EOS among the first K finishes its hypothesis (so K = 1 without penalty is greedy), and the
    first K others live on; after the last position the live ones compete too, at length T.

    The loop stops when no live beam can beat the worst finished hypothesis. Its sum can only
    fall, so its best score would divide today's sum by the largest divisor still ahead: that of
    length T, or of the next length if the penalty is negative. Example: sum -2.0, T = 7 and
    penalty 1 can still reach -2.0 / ((5 + 7) / 6) = -1.0, so a finished -1.1 does not stop it.

    Args:
      step: See the module's head; called with K = `beams`.
      cache: Cache with K = `beams`; only beam 0 counts at the first step.
      batch_size: B.
      beams: K.
      max_length: T, EOS included.
      length_penalty: Exponent alpha (float or scalar array); 0 compares plain sums, more
        favours longer hypotheses.
      eos_id: Ends a hypothesis.
      bos_id: Fed at index 0.
      suppress: Ids that are never produced, besides the pad.

    Returns:
      Tokens int32 [B, K, T] and normalised scores float32 [B, K]. If fewer than K hypotheses
      exist, the rest are zeros of score -inf.

    Raises:
      UserError: A size is below 1 or an id is outside the vocabulary.
    """
    _check_sizes(cache, batch_size, beams, max_length)
    lengths = jnp.arange(max_length + 1, dtype=jnp.float32)
    divisors = ((5 + lengths) / 6) ** length_penalty

    def advance(state: _Search) -> _Search:
        current = Cache(cache.shared, state.cache_beams)
        log_probabilities, cache_beams = _log_probabilities(
            step, state.last, state.index, current, eos_id, suppress
        )
        return _advance(state, log_probabilities, cache_beams, divisors, eos_id)

    start = _start(batch_size, beams, max_length, bos_id, cache.beams)
    state = jax.lax.while_loop(functools.partial(_can_improve, divisors), advance, start)
    filled = jnp.where(state.index == max_length, state.live_scores / divisors[-1], -jnp.inf)
    return _best(state.done_tokens, state.done_scores, state.live_tokens, filled)


@flax.struct.dataclass
class _Search:
    """Beam search between two steps; both sets are sorted, best first."""

    index: jax.Array
    last: jax.Array  # int32 [B, K]
    live_tokens: jax.Array  # int32 [B, K, T]
    live_scores: jax.Array  # float32 [B, K], plain sums, -inf where no beam is
    done_tokens: jax.Array  # int32 [B, K, T]
    done_scores: jax.Array  # float32 [B, K], normalised, -inf where no hypothesis is
    cache_beams: Any


def _start(batch_size: int, beams: int, max_length: int, bos_id: int, cache_beams: Any) -> _Search:
    shape = (batch_size, beams)
    empty = jnp.zeros((*shape, max_length), jnp.int32)
    nothing = jnp.full(shape, -jnp.inf, jnp.float32)
    return _Search(
        index=jnp.int32(0),
        last=jnp.full(shape, bos_id, jnp.int32),
        live_tokens=empty,
        live_scores=nothing.at[:, 0].set(0.0),
        done_tokens=empty,
        done_scores=nothing,
        cache_beams=cache_beams,
    )


def _can_improve(divisors: jax.Array, state: _Search) -> jax.Array:
    """Whether any example's best live beam may yet beat its worst finished hypothesis."""
    max_length = len(divisors) - 1
    ahead = jnp.maximum(divisors[state.index + 1], divisors[max_length])
    settled = state.done_scores[:, -1] >= state.live_scores[:, 0] / ahead
    return (state.index < max_length) & ~jnp.all(settled)


def _advance(
    state: _Search,
    log_probabilities: jax.Array,
    cache_beams: Any,
    divisors: jax.Array,
    eos_id: int,
) -> _Search:
    """Extends every live beam by one token; `log_probabilities` float32 [B, K, V]."""
    batch, beams, vocabulary = log_probabilities.shape
    totals = (state.live_scores[..., None] + log_probabilities).reshape(batch, -1)
    # A beam has one EOS extension, so the best 2K extensions hold at least K that live on.
    totals, flat = jax.lax.top_k(totals, 2 * beams)
    parents, tokens = flat // vocabulary, flat % vocabulary
    extended = jnp.take_along_axis(state.live_tokens, parents[..., None], axis=1)
    extended = extended.at[:, :, state.index].set(tokens)
    ends = tokens == eos_id

    finished = jnp.where(ends, totals / divisors[state.index + 1], -jnp.inf)
    done_tokens, done_scores = _best(
        state.done_tokens, state.done_scores, extended[:, :beams], finished[:, :beams]
    )
    live_scores, kept = jax.lax.top_k(jnp.where(ends, -jnp.inf, totals), beams)
    return _Search(
        index=state.index + 1,
        last=jnp.take_along_axis(tokens, kept, axis=1),
        live_tokens=jnp.take_along_axis(extended, kept[..., None], axis=1),
        live_scores=live_scores,
        done_tokens=done_tokens,
        done_scores=done_scores,
        cache_beams=_reorder(cache_beams, jnp.take_along_axis(parents, kept, axis=1)),
    )


def _best(
    tokens: jax.Array, scores: jax.Array, more_tokens: jax.Array, more_scores: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """The K best of two sets [B, K, T], [B, K]; among equals the first set wins.

    So a slot of the first set that is still empty (zeros, -inf) never takes in a beam of -inf.
    """
    count = scores.shape[1]
    scores, order = jax.lax.top_k(jnp.concatenate([scores, more_scores], axis=1), count)
    tokens = jnp.concatenate([tokens, more_tokens], axis=1)
    return jnp.take_along_axis(tokens, order[..., None], axis=1), scores


def _reorder(cache_beams: Any, parents: jax.Array) -> Any:
    """Gives beam k of example b the cache of beam `parents[b, k]`; leaves [L, B, K, ...]."""

    def of_example(leaf: jax.Array, indices: jax.Array) -> jax.Array:
        return leaf[:, indices]

    gather = jax.vmap(of_example, in_axes=(1, 0), out_axes=1)
    return jax.tree.map(lambda leaf: gather(leaf, parents), cache_beams)


def _roll_out(
    step: Step,
    cache: Cache,
    choose: Choose,
    shape: tuple[int, int, int],
    eos_id: int,
    bos_id: int,
    suppress: Sequence[int],
) -> tuple[jax.Array, jax.Array]:
    """Extends every hypothesis by the token that `choose(log_probabilities, index)` names."""
    _check_sizes(cache, *shape)
    max_length = shape[-1]

    def unfinished(state: tuple) -> jax.Array:
        index, done = state[0], state[4]
        return (index < max_length) & ~jnp.all(done)

    def extend(state: tuple) -> tuple:
        index, last, tokens, scores, done, beams = state
        log_probabilities, beams = _log_probabilities(
            step, last, index, Cache(cache.shared, beams), eos_id, suppress
        )
        chosen = jnp.where(done, PAD_ID, choose(log_probabilities, index)).astype(jnp.int32)
        gained = jnp.take_along_axis(log_probabilities, chosen[..., None], axis=-1)[..., 0]
        scores = jnp.where(done, scores, scores + gained)
        tokens = tokens.at[:, :, index].set(chosen)
        return index + 1, chosen, tokens, scores, done | (chosen == eos_id), beams

    start = (
        jnp.int32(0),
        jnp.full(shape[:2], bos_id, jnp.int32),
        jnp.full(shape, PAD_ID, jnp.int32),
        jnp.zeros(shape[:2], jnp.float32),
        jnp.zeros(shape[:2], bool),
        cache.beams,
    )
    _, _, tokens, scores, _, _ = jax.lax.while_loop(unfinished, extend, start)
    return tokens, scores


def _log_probabilities(
    step: Step,
    tokens: jax.Array,
    index: jax.Array,
    cache: Cache,
    eos_id: int,
    suppress: Sequence[int],
) -> tuple[jax.Array, Any]:
    """One step: float32 [B, K, V], -inf at ids that must not be produced, and the new beams."""
    logits, cache = step(tokens, index, cache)
    vocabulary = logits.shape[-1]
    for token in (eos_id, *suppress):
        if not 0 <= token < vocabulary:
            raise UserError(
                f"Token id {token} is outside the vocabulary of {vocabulary}; "
                "check eos_id and suppress."
            )
    banned = np.isin(np.arange(vocabulary), (PAD_ID, *suppress))
    log_probabilities = jax.nn.log_softmax(logits.astype(jnp.float32), axis=-1)
    return jnp.where(banned, -jnp.inf, log_probabilities), cache.beams


def _truncate(scaled: jax.Array, top_k: int, top_p: float) -> tuple[jax.Array, jax.Array]:
    """The likeliest token ids, likeliest first, and their log probabilities (-inf: cut)."""
    vocabulary = scaled.shape[-1]
    ranked, order = jax.lax.top_k(scaled, min(top_k or vocabulary, vocabulary))
    mass = jax.nn.softmax(ranked, axis=-1)
    before = jnp.cumsum(mass, axis=-1) - mass
    if top_p < 1:
        ranked = jnp.where(before < top_p, ranked, -jnp.inf)
    return order, ranked


def _check_sizes(cache: Cache, batch_size: int, beams: int, max_length: int) -> None:
    sizes = {"batch_size": batch_size, "beams or samples": beams, "max_length": max_length}
    for name, size in sizes.items():
        if size < 1:
            raise UserError(f"Decoding needs {name} of at least 1, not {size}.")
    for path, leaf in jax.tree_util.tree_leaves_with_path(cache.beams):
        if leaf.ndim < 3 or leaf.shape[1:3] != (batch_size, beams):
            name = jax.tree_util.keystr(path)
            raise ValueError(
                f"cache.beams{name} has shape {leaf.shape}, "
                f"not [layers, {batch_size}, {beams}, ...]."
            )
