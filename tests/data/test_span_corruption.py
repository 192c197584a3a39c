import collections
import itertools
import math

import numpy as np
import pytest
import seqio
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from simvlm_jax.data.span_corruption import (
    corrupt,
    longest_text,
    random_composition,
    span_corruption,
    span_counts,
    span_mask,
)
from simvlm_jax.errors import UserError

END, EXTRA = 1, 20
INTEGER, NUMBER = tf.TensorSpec([], tf.int32), tf.TensorSpec([], tf.float32)
KEY = tf.TensorSpec([2], tf.int32)
mask_of = tf.function(span_mask, input_signature=[INTEGER, NUMBER, NUMBER, KEY])
composition = tf.function(random_composition, input_signature=[INTEGER, INTEGER, KEY])
VOCABULARY = seqio.ByteVocabulary(extra_ids=EXTRA)
FEATURES = {name: seqio.Feature(VOCABULARY) for name in ("inputs", "targets")}
FIRST = VOCABULARY.vocab_size - 1
SENTINELS = [FIRST - number for number in range(EXTRA)]


def merge(inputs, targets, sentinels=SENTINELS):
    """Puts the spans back in the plainest way."""
    assert targets[-1] == END
    spans, text = {}, []
    for token in targets[:-1]:
        if token in sentinels:
            assert token == sentinels[len(spans)], "sentinels must come in order"
            spans[token] = []
        else:
            spans[list(spans)[-1]].append(token)
    for token in inputs:
        text += spans.pop(token) if token in sentinels else [token]
    assert not spans
    return text


def run(texts, lengths, seed=0, **options):
    columns = {"targets": texts, "id": np.arange(len(texts)), "seed": np.full(len(texts), seed)}
    dataset = tf.data.Dataset.from_tensor_slices(columns)
    return list(span_corruption(dataset, lengths, FEATURES, **options).as_numpy_iterator())


def runs(mask):
    return [len(list(group)) for hidden, group in itertools.groupby(mask) if hidden]


@given(
    count=st.integers(1, 120),
    density=st.floats(0.0625, 0.875, width=32),
    mean=st.floats(1, 6, width=32),
    key=st.tuples(st.integers(0, 2**31 - 1), st.integers(0, 2**31 - 1)),
)
@settings(deadline=None, max_examples=60)
def test_merging_both_sides_gives_the_text(count, density, mean, key):
    tokens = np.arange(2, count + 2, dtype=np.int32)
    mask = mask_of(count, density, mean, key)
    hidden, spans = (int(number) for number in span_counts(count, density, mean))
    lengths = runs(mask.numpy().tolist())
    assert mask.shape == [count] and sum(lengths) == hidden and len(lengths) == spans
    sides = corrupt(tf.constant(tokens), mask, 999, END)
    inputs, targets = (side.numpy().tolist() for side in sides)
    assert len(inputs) == count - hidden + spans and len(targets) == hidden + spans + 1
    assert merge(inputs, targets, [999 - n for n in range(spans)]) == tokens.tolist()


def test_worked_example_of_the_docstring():
    mask = tf.constant([False, True, True, False, False, True])
    inputs, targets = corrupt(tf.constant([21, 22, 23, 24, 25, 26]), mask, 99, 1)
    assert inputs.numpy().tolist() == [21, 99, 24, 25, 98]
    assert targets.numpy().tolist() == [99, 22, 23, 98, 26, 1]


def test_density_and_span_length_are_t5_s():
    hidden, spans = span_counts(tf.constant([1, 3, 20, 40, 512]), 0.15, 3.0)
    assert hidden.numpy().tolist() == [1, 1, 3, 6, 77]
    assert spans.numpy().tolist() == [1, 1, 1, 2, 26]


def test_every_composition_is_equally_likely():
    draws = collections.Counter(tuple(composition(6, 3, (7, n)).numpy()) for n in range(1500))
    assert len(draws) == math.comb(5, 2) and all(sum(parts) == 6 for parts in draws)
    assert stats.chisquare(list(draws.values())).pvalue > 1e-3


def test_every_position_may_be_hidden():
    masks = [mask_of(12, 0.25, 1.5, (1, n)) for n in range(200)]
    assert np.stack(masks).any(0).all() and not np.stack(masks).all(0).any()


def test_longest_text_is_that_of_brute_force():
    for inputs, targets, sentinels in [(10, 4, 9), (30, 10, 2), (64, 64, 48), (3, 3, 1), (1, 2, 5)]:
        most = 0
        for count in range(1, inputs + targets + 1):
            hidden, spans = (int(number) for number in span_counts(count, 0.3, 2.0))
            fits = count - hidden + spans <= inputs and hidden + spans + 1 <= targets
            if not (fits and spans <= sentinels):
                break
            most = count
        assert longest_text(inputs, targets, sentinels, 0.3, 2.0) == most


def test_examples_fit_and_merge_to_the_text_that_fits():
    texts = ["a", "hello", "the quick brown fox jumps over the lazy dog", ""]
    lengths = {"inputs": 24, "targets": 12}
    for text, example in zip(texts, run(texts, lengths), strict=True):
        inputs, targets = example["inputs"].tolist(), example["targets"].tolist()
        assert len(inputs) <= 24 and len(targets) <= 12
        tokens = VOCABULARY.encode(text)
        if text:
            merged = merge(inputs, targets)
            assert merged == tokens[: len(merged)] and len(merged) >= min(len(tokens), 20)
        else:
            assert inputs == targets == []
        assert example["targets_pretokenized"] == text.encode()


def test_spans_are_a_function_of_seed_and_id():
    texts = ["the quick brown fox jumps over the lazy dog"] * 3
    one, same, other = (
        [example["inputs"].tolist() for example in run(texts, None, seed=seed)]
        for seed in (1, 1, 2)
    )
    assert one == same and one != other and one[0] != one[1]


def test_settings_without_sense_are_refused():
    for options in ({"density": 0.0}, {"density": 1.0}, {"mean_length": 0.5}):
        with pytest.raises(UserError, match="Span corruption needs"):
            run(["abc"], None, **options)
    with pytest.raises(UserError, match="fits no text"):
        run(["abc"], {"inputs": 8, "targets": 2})
