import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simvlm_jax.errors import UserError
from simvlm_jax.models.flops import forward_flops
from simvlm_jax.planning import lengths
from simvlm_jax.testing import tiny_config

CONFIG = tiny_config()


def test_a_worked_example():
    """Texts of 2 tokens are cut before the first or the second: 0 + 3 or 1 + 2 with the end."""
    expected = (forward_flops(CONFIG, 0, 3, True) + forward_flops(CONFIG, 1, 2, True)) / 2
    assert lengths.real_flops(CONFIG, {2: 1.0}, 8, 8, True) == pytest.approx(expected)


@settings(deadline=None, max_examples=30)
@given(
    st.dictionaries(st.integers(1, 30), st.floats(0.1, 9), min_size=1, max_size=4),
    st.integers(1, 12),
    st.integers(1, 12),
)
def test_never_more_than_the_padded_batch(histogram, prefix, length):
    full = forward_flops(CONFIG, prefix, length, False)
    assert 0 < lengths.real_flops(CONFIG, histogram, prefix, length, False) <= full * (1 + 1e-9)


def test_weights_are_shares():
    one, two = (lengths.real_flops(CONFIG, {n: 1.0}, 16, 16, True) for n in (3, 9))
    both = lengths.real_flops(CONFIG, {3: 2.0, 9: 6.0}, 16, 16, True)
    assert both == pytest.approx(0.25 * one + 0.75 * two)


def test_histograms_are_read():
    assert lengths.parse("8:1,16:2.5") == {8: 1.0, 16: 2.5}
    assert lengths.parse("512") == {512: 1.0}


@pytest.mark.parametrize("text", ["", "a:1", "8:x", "0:1", "8:0", "8:-1", "8;16"])
def test_other_texts_are_refused(text):
    with pytest.raises(UserError, match="is no histogram of lengths: write TOKENS:WEIGHT"):
        lengths.parse(text)
