import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simvlm_jax.errors import UserError
from simvlm_jax.evaluation.captions import (
    cider_scores,
    distinct_ratio,
    matches,
    most_frequent_caption,
    score_captions,
    words,
)


def grams(text, length):
    pieces = text.split()
    return Counter(tuple(pieces[i : i + length]) for i in range(len(pieces) - length + 1))


def slow_cider(predictions, references):
    """CIDEr-D with dense vectors over all n-grams, from the paper and its clipping variant."""
    scores = np.zeros(len(predictions))
    for length in range(1, 5):
        corpus = [[grams(text, length) for text in texts] for texts in references]
        given_ = [grams(text, length) for text in predictions]
        space = sorted(
            {g for texts in corpus for c in texts for g in c} | {g for c in given_ for g in c}
        )
        if not space:
            continue
        frequency = np.array([sum(any(g in c for c in texts) for texts in corpus) for g in space])
        idf = np.log(len(references)) - np.log(np.maximum(frequency, 1))

        def vector(counts, idf=idf, space=space):
            return np.array([counts[g] for g in space]) * idf

        for number, (prediction, texts) in enumerate(zip(given_, corpus, strict=True)):
            for reference, text in zip(texts, references[number], strict=True):
                mine, theirs = vector(prediction), vector(reference)
                norms = np.linalg.norm(mine) * np.linalg.norm(theirs)
                # The length in the penalty counts bigrams, as COCO's scorer has it.
                bigrams = sum(grams(predictions[number], 2).values()) - sum(grams(text, 2).values())
                similarity = np.minimum(mine, theirs) @ theirs / norms if norms else 0.0
                penalty = math.exp(-(bigrams**2) / (2 * 6.0**2))
                scores[number] += 10 * similarity * penalty / 4 / len(texts)
    return scores


captions_ = st.lists(st.sampled_from("abcdef"), min_size=1, max_size=7).map(" ".join)


@settings(deadline=None, max_examples=60)
@given(
    st.lists(
        st.tuples(captions_, st.lists(captions_, min_size=1, max_size=3)), min_size=1, max_size=6
    )
)
def test_cider_equals_a_dense_computation(examples):
    predictions = [prediction for prediction, _ in examples]
    references = [texts for _, texts in examples]
    expected = slow_cider(predictions, references)
    np.testing.assert_allclose(cider_scores(predictions, references), expected, atol=1e-9)


def test_equal_captions_reach_ten_only_with_four_words_or_more():
    texts = ["one", "two words", "three more words", "a b c d", "five quite other distinct things"]
    np.testing.assert_allclose(cider_scores(texts, texts), [2.5, 5, 7.5, 10, 10])


def test_cider_is_blind_to_case_and_punctuation_and_gives_strangers_nothing():
    references = ["Woman facepalming: dark skin tone", "red heart", "a cat"]
    predictions = ["woman facepalming, DARK skin tone!", "", "zebra crossing"]
    np.testing.assert_allclose(cider_scores(predictions, references), [10, 0, 0], atol=1e-9)


def test_cider_needs_references_with_words():
    with pytest.raises(UserError, match="No reference holds a word"):
        cider_scores(["a", "b"], ["!", " "])


def test_cider_says_nothing_while_it_counts(capfd):
    score_captions(["a cat", "a dog"], ["a cat", "a dog"])
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Keycap: #, dark-red", ["keycap", "#", "dark", "red"]),
        ("  O button (blood type)\n", ["o", "button", "blood", "type"]),
        ("Gru\u0308ner \u201eApfel\u201c & 10", ["gr\u00fcner", "apfel", "&", "10"]),
        ("don't\u2026", ["don", "t"]),
        ("?!", []),
    ],
)
def test_words(text, expected):
    assert words(text) == expected


def test_matches_forgive_case_and_space_and_accept_any_reference():
    predictions = ["Red  heart", "red heart!", "dog", "keycap: #"]
    references = ["red heart", "red heart", ["cat", "Dog"], "keycap: *"]
    assert matches(predictions, references) == [True, False, True, False]


def test_distinct_ratio_counts_different_captions():
    assert distinct_ratio(["a", "A", " a", "b"]) == 0.5
    with pytest.raises(UserError, match="0 predictions"):
        distinct_ratio([])


def test_most_frequent_caption_breaks_ties_by_the_alphabet():
    assert most_frequent_caption(["b", "c", "a", "c"]) == "c"
    assert most_frequent_caption(iter(["b", "a"])) == "a"
    with pytest.raises(UserError, match="0 captions"):
        most_frequent_caption([])


def test_score_captions_as_in_its_example():
    found = score_captions(["red heart", "cat"], ["red heart", "dog"])
    expected = {"exact_match": 0.5, "cider": 2.5, "cider_maximum": 3.75, "distinct_ratio": 1.0}
    assert found == pytest.approx(expected)
    assert all(type(value) is float for value in found.values())


def test_a_constant_caption_scores_below_right_ones():
    references = ["red heart", "blue heart", "a small cat", "flag: Chad"]
    constant = score_captions(["red heart"] * 4, references)
    right = score_captions(references, references)
    assert constant["cider"] < right["cider"] == right["cider_maximum"]
    assert constant["distinct_ratio"] == 0.25 and constant["exact_match"] == 0.25
