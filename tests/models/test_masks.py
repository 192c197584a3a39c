import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from simvlm_jax.models.masks import pad_front, prefix_lm_mask, prefix_mask, text_positions

few = settings(deadline=None, max_examples=25)
sizes = st.integers(0, 6)
prefixes = st.lists(st.integers(0, 4), min_size=3, max_size=3)


def padded(lengths, size):
    """Token rows of these lengths, 0 after them."""
    return np.array([[7] * n + [0] * (size - n) for n in lengths], np.int32)


def test_prefix_lm_mask_by_worked_example():
    expected = [[1, 1, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0], [1, 1, 1, 1]]
    np.testing.assert_array_equal(prefix_lm_mask(2, 4), np.array(expected, bool))
    np.testing.assert_array_equal(prefix_lm_mask(0, 4), np.tril(np.ones((4, 4), bool)))
    np.testing.assert_array_equal(prefix_lm_mask(4, 4), np.ones((4, 4), bool))


@few
@given(sizes)
def test_prefix_lm_mask_by_brute_force(prefix):
    mask = np.asarray(prefix_lm_mask(prefix, 6))
    for query in range(6):
        for key in range(6):
            both_in_prefix = query < prefix and key < prefix
            assert mask[query, key] == (key <= query or both_in_prefix)


@few
@given(prefixes, st.sampled_from([0, 5]))
def test_prefix_mask_marks_images_and_real_text(lengths, image_tokens):
    mask = np.asarray(prefix_mask(padded(lengths, 4), image_tokens))
    assert mask.shape == (len(lengths), image_tokens + 4)
    assert mask[:, :image_tokens].all()
    for row, length in zip(mask, lengths, strict=True):
        assert row.sum() == image_tokens + length
        assert row[: image_tokens + length].all()


@few
@given(prefixes, st.sampled_from([1, 5]))
def test_text_positions_number_the_real_tokens_without_a_gap(lengths, after):
    positions = np.asarray(text_positions(padded(lengths, 4), after))
    for row, length in zip(positions, lengths, strict=True):
        real = np.concatenate([row[:length], row[4:]])
        np.testing.assert_array_equal(real, np.arange(length + after))


def test_pad_front_puts_zeros_where_images_are():
    bias = np.arange(1.0, 7).reshape(1, 1, 2, 3)
    whole = np.asarray(pad_front(bias, 2))[0, 0]
    np.testing.assert_array_equal(whole, [[0] * 5, [0] * 5, [0, 0, 1, 2, 3], [0, 0, 4, 5, 6]])
    keys = np.asarray(pad_front(bias, 2, keys_only=True))[0, 0]
    np.testing.assert_array_equal(keys, [[0, 0, 1, 2, 3], [0, 0, 4, 5, 6]])
