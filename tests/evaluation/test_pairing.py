import pytest

from simvlm_jax.errors import UserError
from simvlm_jax.evaluation.pairing import paired, plain


def test_one_reference_and_several_look_alike():
    assert paired(["a", "b"], ["x", ("y", "z")]) == [("a", ["x"]), ("b", ["y", "z"])]


@pytest.mark.parametrize(
    ("predictions", "references", "sentence"),
    [
        ([], [], "0 predictions"),
        (["a", "b"], ["x"], "2 predictions for 1 references"),
        (["a", "b"], ["x", []], "Example 1 has no reference"),
        (["a", None], ["x", "y"], "Example 1 holds None, which is no text"),
        (["a", "b"], ["x", None], "Example 1 holds None, which is no text"),
        (["a", "b"], ["x", ["y", 5]], "Example 1 holds 5, which is no text"),
        (["a", "b"], [b"x", "y"], "Example 0 holds 120, which is no text"),
    ],
)
def test_what_does_not_pair_is_refused(predictions, references, sentence):
    with pytest.raises(UserError, match=sentence):
        paired(predictions, references)


def test_plain_forgives_unicode_form_and_white_space_only():
    assert plain("  Gru\u0308nes \n\tHerz ") == "Gr\u00fcnes Herz"
    assert plain("Herz!") != plain("Herz")
