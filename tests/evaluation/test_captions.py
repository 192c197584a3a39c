import functools
import itertools
import math
import operator
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simvlm_jax.errors import UserError
from simvlm_jax.evaluation.captions import (
    bleu_scores,
    cider_scores,
    distinct_ratio,
    matches,
    most_frequent_caption,
    most_frequent_share,
    rouge_scores,
    sameness_warning,
    score_captions,
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
    expected |= {"bleu_1": 2 / 3, "bleu_2": (2 / 3) ** 0.5, "rouge_l": 0.5}
    expected |= {"most_frequent_share": 0.5}
    small = [found.pop(name) for name in ("bleu_3", "bleu_4")]  # no word has a 3-gram
    assert found == pytest.approx(expected) and max(small) < 0.01
    assert all(type(value) is float for value in found.values())


def test_the_maximum_is_of_the_first_references():
    references = [["a red heart on a card", "love"], ["a small black cat sits", "cat"]]
    firsts = [texts[0] for texts in references]
    found = score_captions(["x", "y"], references)
    assert found["cider_maximum"] == pytest.approx(cider_scores(firsts, references).mean())


def test_a_constant_caption_scores_below_right_ones():
    references = ["red heart", "blue heart", "a small cat", "flag: Chad"]
    constant = score_captions(["red heart"] * 4, references)
    right = score_captions(references, references)
    assert constant["cider"] < right["cider"] == right["cider_maximum"]
    assert constant["distinct_ratio"] == 0.25 and constant["exact_match"] == 0.25


def longest_common(first, second):
    """By trying all subsequences, the longest first."""
    for length in range(min(len(first), len(second)), 0, -1):
        here = set(itertools.combinations(first, length))
        if here & set(itertools.combinations(second, length)):
            return length
    return 0


def slow_rouge(prediction, texts):
    prediction, texts = prediction.split(), [text.split() for text in texts]
    common = [longest_common(prediction, text) for text in texts]
    precision = max(common) / len(prediction)
    recall = max(n / len(text) for n, text in zip(common, texts, strict=True))
    joined = recall + 1.44 * precision
    return 2.44 * precision * recall / joined if joined else 0


def slow_bleu(predictions, references):
    """Counts of n-grams that may be used up, over the corpus; the closest reference's length."""
    logs, scores, closest, said = [], [], 0, 0
    for prediction, texts in zip(predictions, references, strict=True):
        length = len(prediction.split())
        said += length
        closest += min((abs(len(t.split()) - length), len(t.split())) for t in texts)[1]
    for n in range(1, 5):
        hits = total = 0
        for prediction, texts in zip(predictions, references, strict=True):
            mine = grams(prediction, n)
            allowed = functools.reduce(operator.or_, (grams(text, n) for text in texts))
            hits += sum((mine & allowed).values())
            total += sum(mine.values())
        logs.append(math.log((hits + 1e-15) / (total + 1e-9)))  # its guards against zeros
        scores.append(math.exp(sum(logs) / n + min(0, 1 - closest / said)))
    return scores


examples_ = st.lists(
    st.tuples(captions_, st.lists(captions_, min_size=1, max_size=3)), min_size=1, max_size=6
)


@settings(deadline=None, max_examples=100)
@given(examples_)
def test_bleu_and_rouge_equal_slow_counts(examples):
    predictions, references = zip(*examples, strict=True)
    expected = [slow_rouge(*example) for example in examples]
    np.testing.assert_allclose(rouge_scores(predictions, references), expected, atol=1e-9)
    np.testing.assert_allclose(
        bleu_scores(predictions, references), slow_bleu(predictions, references), atol=1e-6
    )


def test_bleu_and_rouge_as_in_their_examples():
    bleu = bleu_scores(["a b c d"], [["a b c e"]])
    np.testing.assert_allclose(bleu[:3], [3 / 4, 0.5**0.5, 0.25 ** (1 / 3)], atol=1e-6)
    np.testing.assert_allclose(rouge_scores(["a c"], ["a b c"]), [2.44 * 2 / 3 / (2 / 3 + 1.44)])


@settings(deadline=None, max_examples=100)
@given(st.lists(st.tuples(st.text(), st.lists(st.text(), min_size=1, max_size=2)), min_size=1))
def test_hostile_captions_get_numbers_in_range_or_a_sentence(examples):
    predictions, references = zip(*examples, strict=True)
    try:
        found = score_captions(predictions, references)
    except UserError as error:
        assert "No reference holds a word" in str(error)
        return
    assert 0 <= found.pop("cider") <= 10 + 1e-9 and 0 <= found.pop("cider_maximum") <= 10 + 1e-9
    assert all(0 <= value <= 1 + 1e-9 for value in found.values())


def test_a_caption_that_never_ends_is_refused():
    with pytest.raises(UserError, match="example 1 has 1001 words, and 1000 are the most"):
        rouge_scores(["a", "a " * 1001], ["a", "b"])


@pytest.mark.parametrize(
    ("predictions", "references", "warned"),
    [
        (["a dog"] * 9 + ["a cat"], [f"thing {n}" for n in range(10)], True),
        (["yes"] * 10, ["yes"] * 5 + ["no"] * 5, True),
        (["yes"] * 6 + ["no"] * 4, ["yes"] * 5 + ["no"] * 5, False),
        (["a dog"] * 4 + list("abcdef"), list("ghijklmnop"), False),  # less than half
        (["yes"] * 10, ["yes"] * 6 + ["no"] * 4, False),  # most answers are "yes"
        (["a dog", " A  Dog ", "a dog"], [["x", "y"], ["z"], ["w"]], True),
        (["a dog"] * 2, ["x", "y"], False),  # two are no evidence
        ([f"thing {n}" for n in range(10)], ["a dog"] * 10, False),
    ],
)
def test_the_same_caption_for_every_image_is_told(predictions, references, warned):
    sentence = sameness_warning(predictions, references)
    assert bool(sentence) == warned
    if warned:
        assert "may ignore its image" in sentence and sentence.count("\n") == 0


def test_most_frequent_share():
    assert most_frequent_share(["a dog", "A  dog", "a cat"]) == pytest.approx(2 / 3)
    with pytest.raises(UserError, match="0 predictions"):
        most_frequent_share([])
