"""Decoding against enumeration and plain-python references, over the network of hashes."""

import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from hash_network import hash_cache, hash_network, reference_log_probabilities
from simvlm_jax import decoding
from simvlm_jax.errors import UserError

EOS = 1
SEEDS = st.integers(0, 2**31 - 1)
few = settings(deadline=None, max_examples=12)


def divisor(length, alpha):
    return ((5 + length) / 6) ** alpha


def padded(sequence, length):
    return list(sequence) + [0] * (length - len(sequence))


def enumerate_all(salt, vocabulary, length, alpha, banned=()):
    """Every hypothesis there is, best first: [(score, tokens)]."""
    words = [token for token in range(2, vocabulary) if token not in banned]
    bodies = [(*body, EOS) for n in range(length) for body in itertools.product(words, repeat=n)]
    bodies += list(itertools.product(words, repeat=length))
    results = []
    for body in bodies:
        total = sum(
            reference_log_probabilities(salt, body[:n], vocabulary, length)[token]
            for n, token in enumerate(body)
        )
        results.append((total / divisor(len(body), alpha), padded(body, length)))
    return sorted(results, reverse=True)


def narrow_search(salt, vocabulary, beams, length, alpha):
    """Beam search over python lists that always runs to the end."""
    live, done = [(0.0, ())], []
    for position in range(length):
        extensions = []
        for total, prefix in live:
            row = reference_log_probabilities(salt, prefix, vocabulary, length)
            extensions += [(total + row[t], (*prefix, t)) for t in range(1, vocabulary)]
        extensions.sort(reverse=True)
        done += [
            (total / divisor(position + 1, alpha), tokens)
            for total, tokens in extensions[:beams]
            if tokens[-1] == EOS
        ]
        live = [item for item in extensions if item[1][-1] != EOS][:beams]
    done += [(total / divisor(length, alpha), tokens) for total, tokens in live]
    return [(score, padded(t, length)) for score, t in sorted(done, reverse=True)[:beams]]


@functools.partial(jax.jit, static_argnums=(1, 2, 3, 5))
def run_beam_search(salts, vocabulary, beams, length, alpha, suppress=()):
    cache = hash_cache(salts, beams, length)
    step = hash_network(vocabulary)
    return decoding.beam_search(
        step, cache, len(salts), beams, length, length_penalty=alpha, suppress=suppress
    )


@functools.partial(jax.jit, static_argnums=(1, 2))
def run_greedy(salts, vocabulary, length):
    step, cache = hash_network(vocabulary), hash_cache(salts, 1, length)
    return decoding.greedy(step, cache, len(salts), length)


def assert_matches(tokens, scores, expected):
    """Compares with [(score, tokens)], padding the missing with zeros of score -inf."""
    count = min(len(expected), len(scores))
    np.testing.assert_allclose(scores[:count], [s for s, _ in expected[:count]], atol=1e-5)
    assert tokens[:count].tolist() == [t for _, t in expected[:count]]
    assert np.all(np.isneginf(scores[count:])) and not np.any(tokens[count:])


# --- beam search ---------------------------------------------------------------------------------


@few
@given(seed=SEEDS, alpha=st.sampled_from([-0.7, 0.0, 0.6, 1.0, 2.0]))
def test_wide_beam_search_finds_every_hypothesis_in_order(seed, alpha):
    # Pad is one of the four tokens: 31 hypotheses exist, the last of the 33 slots stay empty.
    salts = np.uint32([seed, seed + 1])
    tokens, scores = map(np.asarray, run_beam_search(salts, 4, 33, 4, alpha))
    for row, salt in enumerate(salts):
        expected = enumerate_all(salt, 4, 4, alpha)
        assert len(expected) == 31
        assert_matches(tokens[row], scores[row], expected)


def test_wide_beam_search_over_a_larger_vocabulary():
    salts = np.uint32([5, 6])
    tokens, scores = map(np.asarray, run_beam_search(salts, 5, 130, 4, 0.6))
    for row, salt in enumerate(salts):
        assert_matches(tokens[row], scores[row], enumerate_all(salt, 5, 4, 0.6))


@few
@given(seed=SEEDS, alpha=st.sampled_from([-0.7, 0.0, 0.6, 2.0]), beams=st.sampled_from([1, 2, 5]))
def test_narrow_beam_search_equals_a_plain_one_that_never_stops_early(seed, alpha, beams):
    salts = np.uint32([seed, seed + 7, seed + 8])
    tokens, scores = map(np.asarray, run_beam_search(salts, 9, beams, 6, alpha))
    for row, salt in enumerate(salts):
        assert_matches(tokens[row], scores[row], narrow_search(salt, 9, beams, 6, alpha))


@few
@given(seed=SEEDS)
def test_one_beam_without_length_penalty_is_greedy(seed):
    salts = np.uint32([seed, seed + 1, seed + 2])
    beam_tokens, beam_scores = run_beam_search(salts, 9, 1, 6, 0.0)
    tokens, scores = run_greedy(salts, 9, 6)
    np.testing.assert_array_equal(beam_tokens, tokens)
    np.testing.assert_allclose(beam_scores, scores, atol=1e-6)


def test_length_penalty_decides_between_short_and_long():
    short, long = -1.0, -1.3  # EOS at once, or five certain tokens after a less likely one

    def step(tokens, index, cache):
        first = jnp.log(jnp.asarray([1e-9, math.exp(short), math.exp(long), 1e-9]))
        later = jnp.where(index < 4, jnp.eye(4)[3], jnp.eye(4)[EOS]) * 60.0
        row = jnp.where(index == 0, first, later)
        return jnp.broadcast_to(row, (*tokens.shape, 4)), cache

    total = math.exp(short) + math.exp(long)
    search = jax.jit(
        functools.partial(decoding.beam_search, step, decoding.Cache(None, {}), 1, 2, 5)
    )
    for alpha, best in ((0.0, [1, 0, 0, 0, 0]), (1.0, [2, 3, 3, 3, 1])):
        tokens, scores = search(alpha)
        assert tokens[0, 0].tolist() == best
        chosen = (short if best[0] == EOS else long) - math.log(total)
        length = 1 if best[0] == EOS else 5
        np.testing.assert_allclose(scores[0, 0], chosen / ((5 + length) / 6) ** alpha, atol=1e-5)


def peaked_network(end, steps):
    """After `end` tokens of 2, EOS is nearly certain; records the indices that ran."""

    def step(tokens, index, cache):
        jax.debug.callback(lambda i: steps.append(int(i)), index)
        finishing = index >= jnp.asarray(end)
        rows = jnp.where(finishing[:, None], jnp.eye(4)[EOS] * 9, jnp.eye(4)[2] * 9)
        return jnp.broadcast_to(rows[:, None], (*tokens.shape, 4)), cache

    return step


def test_beam_search_stops_early_without_changing_the_result():
    def search(ends, steps):
        def run(alpha):
            step = peaked_network(ends, steps)
            return decoding.beam_search(step, decoding.Cache(None, {}), len(ends), 2, 20, alpha)

        return jax.jit(run)

    alone, together = [], []
    search_alone, search_together = search([2], alone), search([2, 40], together)
    for alpha in (-1.0, 0.0, 0.6, 1.0):
        alone.clear(), together.clear()
        (tokens, scores), (other_tokens, other_scores) = search_alone(alpha), search_together(alpha)
        jax.effects_barrier()
        # The other example never ends: beside it, the first one runs to the end too.
        assert len(alone) < 20 and len(together) == 20
        np.testing.assert_array_equal(tokens[0], other_tokens[0])
        np.testing.assert_array_equal(scores[0], other_scores[0])


def fixed_rows(rows):
    """A network that says row `index` of [T, V], whatever came before."""

    def step(tokens, index, cache):
        return jnp.broadcast_to(jnp.log(jnp.asarray(rows))[index], (*tokens.shape, 4)), cache

    return step


def test_a_finished_beam_can_be_overtaken_as_late_as_the_last_position():
    # Today's divisor would give the live beam up at once: only at length 6 is it the better.
    first, certain = [1e-12, 0.55, 1e-12, 0.45], [1e-12, 1e-12, 1e-12, 1.0]
    length, finished, live = 8, math.log(0.55), math.log(0.45)
    assert live / divisor(2, 1.0) < finished < live / divisor(length, 1.0)
    step = fixed_rows([first] + [certain] * (length - 1))
    search = functools.partial(decoding.beam_search, step, decoding.Cache(None, {}), 1, 1, length)
    tokens, scores = jax.jit(search)(1.0)
    assert tokens[0, 0].tolist() == [3] * length
    np.testing.assert_allclose(scores[0, 0], live / divisor(length, 1.0), atol=1e-5)


def test_with_a_negative_penalty_a_beam_can_be_overtaken_at_the_next_position():
    # The divisor of the last length would give the live beam up once two hypotheses are finished.
    length, alpha, live = 8, -1.0, 2 * math.log(0.6)
    finished = math.log(0.6) + math.log(0.4)
    overtaking = live / divisor(3, alpha)
    assert live / divisor(length, alpha) < finished / divisor(2, alpha) < overtaking
    either, ending = [1e-12, 0.4, 1e-12, 0.6], [1e-12, 1.0, 1e-12, 1e-12]
    step = fixed_rows([either, either] + [ending] * (length - 2))
    search = functools.partial(decoding.beam_search, step, decoding.Cache(None, {}), 1, 2, length)
    tokens, scores = jax.jit(search)(alpha)
    assert tokens[0].tolist() == [padded([EOS], length), padded([3, 3, EOS], length)]
    np.testing.assert_allclose(scores[0], [math.log(0.4), overtaking], atol=1e-5)


def test_batch_entries_do_not_touch_one_another():
    # One batch size, so one program: another one may round the last bit of a score differently.
    some = run_beam_search(np.uint32([5, 3, 7]), 9, 3, 6, 0.6)
    others = run_beam_search(np.uint32([11, 3, 12]), 9, 3, 6, 0.6)
    np.testing.assert_array_equal(some[0][1], others[0][1])
    np.testing.assert_array_equal(some[1][1], others[1][1])
    assert np.any(np.asarray(some[0][0]) != np.asarray(others[0][0]))


@few
@given(seed=SEEDS)
def test_suppressed_tokens_never_appear_and_keep_the_other_scores(seed):
    salts = np.uint32([seed])
    tokens, scores = map(np.asarray, run_beam_search(salts, 5, 33, 4, 0.6, (3,)))
    assert_matches(tokens[0], scores[0], enumerate_all(seed, 5, 4, 0.6, banned=(3,)))


@pytest.mark.parametrize("seed", range(5))
def test_reorder_gathers_beams_within_each_example(seed):
    generator = np.random.default_rng(seed)
    batch, beams = 3, 4
    parents = generator.integers(0, beams, (batch, beams))
    leaves = {
        "keys": generator.normal(size=(2, batch, beams, 2, 3)).astype(np.float32),
        "position": generator.integers(0, 99, (1, batch, beams)).astype(np.int32),
    }
    moved = decoding._reorder(leaves, jnp.asarray(parents))
    for name, leaf in leaves.items():
        for layer, row, beam in itertools.product(*map(range, leaf.shape[:3])):
            expected = leaf[layer, row, parents[row, beam]]
            np.testing.assert_array_equal(moved[name][layer, row, beam], expected)


# --- greedy --------------------------------------------------------------------------------------


@few
@given(seed=SEEDS)
def test_greedy_follows_the_most_probable_token(seed):
    salts = np.uint32([seed, seed + 1])
    tokens, scores = map(np.asarray, run_greedy(salts, 7, 6))
    assert tokens.shape == (2, 1, 6) and tokens.dtype == np.int32 and scores.dtype == np.float32
    for row, salt in enumerate(salts):
        expected, total = [], 0.0
        while len(expected) < 6 and EOS not in expected:
            log_probabilities = reference_log_probabilities(salt, expected, 7, 6)
            expected.append(1 + int(np.argmax(log_probabilities[1:])))
            total += log_probabilities[expected[-1]]
        assert tokens[row, 0].tolist() == padded(expected, 6)
        np.testing.assert_allclose(scores[row, 0], total, atol=1e-5)


@pytest.mark.parametrize(("end", "expected"), [([2, 4], 5), ([0, 0], 1), ([2, 99], 20)])
def test_greedy_and_sampling_stop_when_all_are_finished(end, expected):
    for decode in (
        decoding.greedy,
        functools.partial(decoding.sample, rng=jax.random.key(0), temperature=0.01),
    ):
        steps = []
        step = peaked_network(end, steps)
        tokens, _ = jax.jit(functools.partial(decode, step, decoding.Cache(None, {}), 2, 20))()
        jax.effects_barrier()
        assert steps == list(range(expected))
        for row, first in enumerate(end):
            ended = [2] * first + [EOS]
            assert tokens[row, 0].tolist() == padded(ended[:20], 20)


# --- sampling ------------------------------------------------------------------------------------


def constant_network(logits):
    def step(tokens, index, cache):
        row = jnp.asarray(logits, jnp.float32)
        return jnp.broadcast_to(row, (*tokens.shape, len(logits))), cache

    return step


def draw(logits, samples=4000, seed=0, **settings_):
    """How often each token was drawn at position 0."""
    step, cache = constant_network(logits), decoding.Cache(None, {})
    decode = functools.partial(decoding.sample, step, cache, 1, 1, samples=samples, **settings_)
    tokens, _ = jax.jit(decode)(jax.random.key(seed))
    return np.bincount(np.asarray(tokens).ravel(), minlength=len(logits))


def reference_distribution(logits, temperature=1.0, top_k=0, top_p=1.0):
    """The truncated distribution by sorting python lists; pad 0 never."""
    weights = {t: math.exp(x / temperature) for t, x in enumerate(logits) if t != 0}
    ranked = sorted(weights, key=lambda t: (-weights[t], t))
    if top_k:
        ranked = ranked[:top_k]
    mass, kept = 0.0, []
    for token in ranked:
        if mass >= top_p * sum(weights[t] for t in ranked):
            break
        kept.append(token)
        mass += weights[token]
    result = np.zeros(len(logits))
    for token in kept:
        result[token] = weights[token] / mass
    return result


LOGITS = [3.0, 0.4, 1.0, -0.8, 2.0, 0.0, 1.5, -0.5]


@pytest.mark.parametrize(
    "settings_",
    [
        {},
        {"temperature": 0.5},
        {"top_k": 3},
        {"top_k": 99},
        {"top_p": 1e-6},
        {"top_p": 0.9},
        {"temperature": 1.7, "top_k": 5, "top_p": 0.8},
    ],
)
def test_draws_follow_the_truncated_softmax(settings_):
    expected = reference_distribution(LOGITS, **settings_)
    counts = draw(LOGITS, **settings_)
    np.testing.assert_array_equal(counts > 0, expected > 0)
    support = expected > 0
    if support.sum() > 1:
        expected_counts = expected[support] * counts.sum()
        assert scipy.stats.chisquare(counts[support], expected_counts).pvalue > 1e-3


@pytest.mark.parametrize(
    ("temperature", "top_k", "top_p"), [(1.0, 0, 0.5), (0.4, 4, 1.0), (2.5, 5, 0.85)]
)
def test_truncation_equals_a_sorted_reference(temperature, top_k, top_p):
    logits = np.random.default_rng(top_k).normal(size=(40, 8)).astype(np.float32) * 2
    scaled = jnp.asarray(logits).at[:, 0].set(-jnp.inf) / temperature
    order, kept = decoding._truncate(scaled, top_k, top_p)
    found = np.zeros((40, 8))
    np.put_along_axis(found, np.asarray(order), np.asarray(jax.nn.softmax(kept)), axis=1)
    for row, mine in zip(logits.tolist(), found, strict=True):
        expected = reference_distribution(row, temperature, top_k, top_p)
        np.testing.assert_allclose(mine, expected, atol=1e-5)


def test_positions_are_drawn_independently():
    step = constant_network([0.0] * 5)
    decode = functools.partial(
        decoding.sample, step, decoding.Cache(None, {}), 1, 2, samples=1800, suppress=(EOS,)
    )
    pairs, _ = jax.jit(decode)(jax.random.key(0))
    _, counts = np.unique(np.asarray(pairs[0]), axis=0, return_counts=True)
    assert len(counts) == 9 and scipy.stats.chisquare(counts).pvalue > 1e-3


def test_equal_probabilities_still_keep_exactly_top_k():
    order, kept = decoding._truncate(jnp.zeros(6), 2, 1.0)
    assert order.tolist() == [0, 1] and np.all(np.isfinite(kept))


@functools.partial(jax.jit, static_argnums=(1, 2, 3, 5))
def run_sample(salts, vocabulary, length, samples, rng, temperature):
    step, cache = hash_network(vocabulary), hash_cache(salts, samples, length)
    return decoding.sample(
        step, cache, len(salts), length, rng, temperature=temperature, samples=samples
    )


@pytest.mark.parametrize("temperature", [0, 1e-4])
def test_cold_sampling_is_greedy(temperature):
    salts = np.arange(3, dtype=np.uint32)
    tokens, scores = run_sample(salts, 9, 6, 2, jax.random.key(1), temperature)
    expected, expected_scores = run_greedy(salts, 9, 6)
    np.testing.assert_array_equal(tokens, np.repeat(expected, 2, axis=1))
    np.testing.assert_allclose(scores, np.repeat(expected_scores, 2, axis=1), atol=1e-6)


def test_samples_are_sorted_scored_by_the_model_and_end_in_zeros():
    salts = np.uint32([1, 2])
    tokens, scores = map(np.asarray, run_sample(salts, 5, 4, 40, jax.random.key(2), 1.5))
    assert np.all(np.diff(scores, axis=1) <= 0)
    known = [{tuple(t): s for s, t in enumerate_all(salt, 5, 4, 0.0)} for salt in salts]
    for row, sample in itertools.product(range(2), range(40)):
        expected = known[row][tuple(tokens[row, sample].tolist())]
        np.testing.assert_allclose(scores[row, sample], expected, atol=1e-5)
    assert len({tuple(t) for t in tokens[0].tolist()}) > 5


def test_a_draw_depends_on_its_key_and_not_on_the_other_examples():
    rng = jax.random.key(3)
    both = run_sample(np.uint32([4, 5]), 9, 6, 3, rng, 1.0)
    other = run_sample(np.uint32([4, 6]), 9, 6, 3, rng, 1.0)
    alone = run_sample(np.uint32([4]), 9, 6, 3, rng, 1.0)
    np.testing.assert_array_equal(both[0][0], other[0][0])
    np.testing.assert_array_equal(both[0][0], alone[0][0])
    assert not np.array_equal(both[0][1], other[0][1])
    again = run_sample(np.uint32([4, 5]), 9, 6, 3, jax.random.key(4), 1.0)
    assert not np.array_equal(both[0], again[0])


# --- refusals ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings_", "word"),
    [
        ({"temperature": -1.0}, "temperature"),
        ({"top_k": -1}, "top_k"),
        ({"top_p": 0.0}, "top_p"),
        ({"top_p": 1.5}, "top_p"),
        ({"samples": 0}, "samples"),
        ({"eos_id": 8}, "eos_id"),
        ({"suppress": (-1,)}, "suppress"),
    ],
)
def test_settings_out_of_range_are_refused(settings_, word):
    with pytest.raises(UserError, match=word):
        decoding.sample(
            constant_network(LOGITS), decoding.Cache(None, {}), 1, 2, jax.random.key(0), **settings_
        )


def test_no_beams_or_positions_are_refused():
    step, cache = constant_network(LOGITS), decoding.Cache(None, {})
    with pytest.raises(UserError, match="beams"):
        decoding.beam_search(step, cache, 1, 0, 4)
    with pytest.raises(UserError, match="max_length"):
        decoding.greedy(step, cache, 1, 0)


def test_a_cache_of_another_shape_is_a_defect():
    with pytest.raises(ValueError, match="digest"):
        decoding.beam_search(hash_network(4), hash_cache(np.uint32([1]), 2, 4), 1, 3, 4)
