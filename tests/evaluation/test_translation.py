import math
from collections import Counter

import pytest
import sacrebleu
from hypothesis import given, settings
from hypothesis import strategies as st

from simvlm_jax.errors import UserError
from simvlm_jax.evaluation.pairing import plain
from simvlm_jax.evaluation.translation import (
    bleu_signature,
    chrf_signature,
    score_translations,
)

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
    long = [text + " und noch viel mehr" for text in WANTED]
    best = {"bleu": 100.0, "chrf": 100.0, "exact_match": 1.0}
    assert score_translations(long, long) == pytest.approx(best)
    found = score_translations(["xyz"], ["abc"])
    assert found == pytest.approx({"bleu": 0.0, "chrf": 0.0, "exact_match": 0.0})


def test_case_counts_and_white_space_does_not():
    assert score_translations(["rotes herz"], ["rotes Herz"])["exact_match"] == 0
    assert score_translations([" rotes  Herz"], ["rotes Herz"])["exact_match"] == 1


def test_every_reference_may_be_met_also_where_their_number_differs():
    wanted = [["ein Hund", "der Hund"], ["Katze"]]
    found = score_translations(["der Hund", "Katze"], wanted)
    assert found["chrf"] == pytest.approx(100) and found["exact_match"] == 1


def test_signature_tells_the_settings_and_the_version():
    settings_ = "nrefs:1|case:mixed|eff:yes|nc:6|nw:0|space:no|version:"
    assert chrf_signature() == settings_ + sacrebleu.__version__
    assert chrf_signature(3).startswith("nrefs:3|")


def test_bleus_signature_tells_the_tokenisation():
    settings_ = "nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:"
    assert bleu_signature() == settings_ + sacrebleu.__version__
    assert bleu_signature(2).startswith("nrefs:2|")


def slow_bleu(given, wanted):
    """Clipped n-grams over the corpus, no punctuation; zeros become 1/2, 1/4, ..."""
    logs, halvings = 0.0, 0
    words = [[text.split() for text in texts] for texts in (given, wanted)]
    for length in range(1, 5):
        hits = total = 0
        for mine, theirs in zip(*words, strict=True):
            grams = [
                Counter(tuple(w[i : i + length]) for i in range(len(w) - length + 1))
                for w in (mine, theirs)
            ]
            hits += sum((grams[0] & grams[1]).values())
            total += sum(grams[0].values())
        if not total:
            return 0.0
        halvings += not hits
        logs += math.log((hits or 0.5**halvings) / total) / 4
    said, asked = (sum(map(len, texts)) for texts in words)
    return 100 * math.exp(logs + min(0, 1 - asked / said))


letters = st.lists(st.sampled_from("abcde"), min_size=4, max_size=8).map(" ".join)


@settings(deadline=None, max_examples=100)
@given(st.lists(st.tuples(letters, letters), min_size=1, max_size=5))
def test_bleu_equals_a_slow_count(pairs):
    given_, wanted = zip(*pairs, strict=True)
    found = score_translations(given_, wanted)["bleu"]
    if set(" ".join(given_).split()) & set(" ".join(wanted).split()):
        assert found == pytest.approx(slow_bleu(given_, wanted), abs=1e-6)


@settings(deadline=None, max_examples=100)
@given(st.lists(st.tuples(st.text(), st.lists(st.text(), min_size=1, max_size=3)), min_size=1))
def test_hostile_translations_get_what_sacrebleu_says(pairs):
    given_ = [plain(text) for text, _ in pairs]
    most = max(len(texts) for _, texts in pairs)
    streams = [[plain(t[n]) if n < len(t) else None for _, t in pairs] for n in range(most)]
    found = score_translations([text for text, _ in pairs], [texts for _, texts in pairs])
    assert found["bleu"] == pytest.approx(sacrebleu.corpus_bleu(given_, streams).score)
    assert found["chrf"] == pytest.approx(sacrebleu.corpus_chrf(given_, streams).score)


def test_counts_that_differ_are_refused():
    with pytest.raises(UserError, match="3 predictions for 2 references"):
        score_translations(GIVEN, WANTED[:2])
