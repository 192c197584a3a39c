from collections import Counter

import pytest
import sacrebleu

from simvlm_jax.errors import UserError
from simvlm_jax.evaluation.translation import chrf_signature, score_translations

GIVEN = ["rotes Herz", "schwarzer Hund", "Flagge: Tschad"]
WANTED = ["rotes Herz", "schwarze Katze", "Flagge: Peru"]


def slow_chrf(given, wanted):
    """Character n-grams of length 1 to 6 without spaces, counted over the corpus; beta 2."""
    scores = []
    for length in range(1, 7):
        both = mine = theirs = 0
        for hypothesis, reference in zip(given, wanted, strict=True):
            counts = []
            for text in (hypothesis, reference):
                letters = "".join(text.split())
                counts.append(
                    Counter(letters[i : i + length] for i in range(len(letters) - length + 1))
                )
            both += sum((counts[0] & counts[1]).values())
            mine += sum(counts[0].values())
            theirs += sum(counts[1].values())
        scores.append((both / mine, both / theirs))
    precision = sum(p for p, _ in scores) / 6
    recall = sum(r for _, r in scores) / 6
    return 100 * 5 * precision * recall / (4 * precision + recall)


def test_chrf_equals_sacrebleu_and_a_count_by_hand():
    found = score_translations(GIVEN, WANTED)
    assert found["chrf"] == pytest.approx(sacrebleu.corpus_chrf(GIVEN, [WANTED]).score)
    assert found["chrf"] == pytest.approx(slow_chrf(GIVEN, WANTED))
    assert found["exact_match"] == pytest.approx(1 / 3)


def test_perfect_and_unrelated_translations_are_the_ends_of_the_scale():
    assert score_translations(WANTED, WANTED) == pytest.approx({"chrf": 100.0, "exact_match": 1.0})
    found = score_translations(["xyz"], ["abc"])
    assert found == pytest.approx({"chrf": 0.0, "exact_match": 0.0})


def test_case_counts_and_white_space_does_not():
    assert score_translations(["rotes herz"], ["rotes Herz"])["exact_match"] == 0
    assert score_translations([" rotes  Herz"], ["rotes Herz"])["exact_match"] == 1


def test_every_reference_may_be_met_also_where_their_number_differs():
    wanted = [["ein Hund", "der Hund"], ["Katze"]]
    found = score_translations(["der Hund", "Katze"], wanted)
    assert found == pytest.approx({"chrf": 100.0, "exact_match": 1.0})


def test_signature_tells_the_settings_and_the_version():
    settings_ = "nrefs:1|case:mixed|eff:yes|nc:6|nw:0|space:no|version:"
    assert chrf_signature() == settings_ + sacrebleu.__version__
    assert chrf_signature(3).startswith("nrefs:3|")


def test_counts_that_differ_are_refused():
    with pytest.raises(UserError, match="3 predictions for 2 references"):
        score_translations(GIVEN, WANTED[:2])
