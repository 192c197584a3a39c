import collections
import itertools

import numpy as np
import pytest
import seqio
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from simvlm_jax.data.prefix import lm, prefix_bounds, prefix_lm, split_text
from simvlm_jax.errors import UserError

END = 1
INTEGERS = [tf.TensorSpec(shape, tf.int32) for shape in ([None], [2], [], [], [])]
split_in_graph = tf.function(split_text, input_signature=INTEGERS)
FEATURES = {name: seqio.Feature(seqio.ByteVocabulary()) for name in ("inputs", "targets")}


def split(count, inputs, targets, key=(3, 4)):
    tokens = np.arange(2, 2 + count, dtype=np.int32)
    sides = split_in_graph(tf.constant(tokens), tf.constant(key), inputs, targets, END)
    return tokens.tolist(), *(side.numpy().tolist() for side in sides)


def run(texts, lengths, seed=0, epoch=None, ids=None, **options):
    columns = {"targets": texts, "id": np.array(ids if ids is not None else range(len(texts)))}
    columns["seed"] = np.full(len(texts), seed)
    if epoch is not None:
        columns["epoch"] = np.full(len(texts), epoch)
    dataset = tf.data.Dataset.from_tensor_slices(columns)
    examples = prefix_lm(dataset, lengths, FEATURES, **options).as_numpy_iterator()
    return {int(example["id"]): example for example in examples}


def prefix_sizes(examples):
    return {number: len(example["inputs"]) for number, example in examples.items()}


def test_bounds_are_those_of_brute_force():
    for inputs, targets in itertools.product(range(6), range(2, 7)):
        for count in range(1, inputs + targets):
            admissible = [
                length
                for length in range(count + 1)
                if length <= inputs and count - length >= 1 and count - length + 1 <= targets
            ]
            lowest, highest = prefix_bounds(count, inputs, targets)
            assert list(range(lowest, highest + 1)) == admissible != []


@given(
    count=st.integers(0, 30),
    inputs=st.integers(0, 12),
    targets=st.integers(2, 12),
    key=st.tuples(st.integers(0, 2**31 - 1), st.integers(0, 2**31 - 1)),
)
@settings(deadline=None, max_examples=150)
def test_both_sides_together_are_the_text(count, inputs, targets, key):
    tokens, prefix, rest = split(count, inputs, targets, key)
    assert len(prefix) <= inputs and len(rest) <= targets
    if count == 0:
        assert prefix == rest == []
    elif count < inputs + targets:
        assert prefix + rest == [*tokens, END] and len(rest) >= 2
    else:
        assert prefix + rest == tokens[: inputs + targets]


def test_worked_example_of_the_docstring():
    tokens = tf.constant([21, 22, 23, 24, 25])
    found = set()
    for number in range(30):
        sides = split_in_graph(tokens, tf.constant([0, number]), 3, 4, END)
        found.add(tuple(tuple(side.numpy().tolist()) for side in sides))
    assert found == {((21, 22), (23, 24, 25, 1)), ((21, 22, 23), (24, 25, 1))}
    assert split(7, 3, 4)[1:] == ([2, 3, 4], [5, 6, 7, 8])
    assert split(8, 3, 4)[1:] == ([2, 3, 4], [5, 6, 7, 8])
    assert split(6, 3, 4)[1:] == ([2, 3, 4], [5, 6, 7, 1])


def test_length_is_uniform_over_the_admissible_positions():
    examples = run(["abcdefgh"] * 2000, {"inputs": 6, "targets": 7}, seed=11)
    counts = collections.Counter(prefix_sizes(examples).values())
    assert sorted(counts) == [2, 3, 4, 5, 6]
    assert stats.chisquare(list(counts.values())).pvalue > 1e-3
    # Neighbouring ids must not be drawn together.
    sizes = np.array([size for _, size in sorted(prefix_sizes(examples).items())])
    assert abs(np.corrcoef(sizes[:-1], sizes[1:])[0, 1]) < 0.06


def test_length_is_a_function_of_seed_epoch_and_id():
    texts, lengths = ["abcdefghijklmnop"] * 40, {"inputs": 16, "targets": 17}
    sizes = prefix_sizes(run(texts, lengths, seed=1, epoch=0))
    assert sizes == prefix_sizes(run(texts, lengths, seed=1, epoch=0))
    assert sizes != prefix_sizes(run(texts, lengths, seed=1, epoch=1))
    assert sizes != prefix_sizes(run(texts, lengths, seed=2, epoch=0))
    shuffled = np.random.default_rng(0).permutation(40)[:20]
    others = prefix_sizes(run(texts[:20], lengths, seed=1, epoch=0, ids=shuffled))
    assert others == {number: sizes[number] for number in shuffled}
    assert prefix_sizes(run(texts, lengths)) == prefix_sizes(run(texts, lengths, epoch=0))


def test_text_becomes_tokens_and_stays_as_text():
    example = run(["hello"], None)[0]
    tokens = FEATURES["targets"].vocabulary.encode("hello")
    assert [*example["inputs"], *example["targets"]] == [*tokens, END]
    assert example["targets_pretokenized"] == b"hello"
    assert example["inputs"].dtype == example["targets"].dtype == np.int32


def test_without_a_prefix_everything_is_predicted():
    for options in ({"inputs": 9, "targets": 6}, {"inputs": 0, "targets": 6}):
        examples = run(["hello", "hello!", ""], options, distribution="zero")
        assert [len(e["inputs"]) for e in examples.values()] == [0, 0, 0]
        ends = [list(e["targets"][-1:]) for e in examples.values()]
        assert ends == [[END], [FEATURES["targets"].vocabulary.encode("!")[0]], []]


def test_lm_is_the_distribution_zero():
    dataset = tf.data.Dataset.from_tensors({"targets": "hello", "id": 4})
    example = next(lm(dataset, {"inputs": 4, "targets": 9}, FEATURES).as_numpy_iterator())
    assert len(example["inputs"]) == 0 and len(example["targets"]) == 6


def test_lengths_and_names_without_sense_are_refused():
    with pytest.raises(UserError, match="targets=1"):
        run(["a"], {"inputs": 4, "targets": 1})
    with pytest.raises(UserError, match="'normal'"):
        run(["a"], {"inputs": 4, "targets": 4}, distribution="normal")
