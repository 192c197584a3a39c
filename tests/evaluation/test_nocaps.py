import numpy as np
import pytest

from simvlm_jax.errors import UserError
from simvlm_jax.evaluation.captions import cider_scores, score_captions
from simvlm_jax.evaluation.nocaps import score_nocaps

PREDICTIONS = {9: "a red dog runs", 3: "a cat", 5: "two birds in a tree", 7: "a kite"}
REFERENCES = {
    3: ["a cat sits", "one cat"],
    5: ["two birds in a tree"],
    7: ["a man", "the kite"],
    9: ["a red dog runs fast"],
}
DOMAINS = {3: "in-domain", 5: "near-domain", 7: "near-domain", 9: "out-domain"}


def test_overall_is_the_mean_of_the_domains_weighted_by_their_images():
    found = score_nocaps(PREDICTIONS, REFERENCES, DOMAINS)
    parts = [found[f"cider_{name}_domain"] for name in ("in", "near", "out")]
    assert found["cider"] == pytest.approx(np.average(parts, weights=[1, 2, 1]))
    ids = [3, 5, 7, 9]
    each = cider_scores([PREDICTIONS[i] for i in ids], [REFERENCES[i] for i in ids])
    assert parts == pytest.approx([each[0], each[1:3].mean(), each[3]])
    whole = score_captions([PREDICTIONS[i] for i in ids], [REFERENCES[i] for i in ids])
    assert {name: found[name] for name in whole} == pytest.approx(whole)


def test_a_split_without_a_domain_has_no_number_for_it():
    found = score_nocaps(PREDICTIONS, REFERENCES, dict.fromkeys(DOMAINS, "in-domain"))
    assert found["cider_in_domain"] == pytest.approx(found["cider"])
    assert "cider_out_domain" not in found


@pytest.mark.parametrize(
    ("predictions", "references", "domains", "sentence"),
    [
        ({}, {}, {}, "0 predictions"),
        (PREDICTIONS, {3: ["a"]}, DOMAINS, "3 images stand in the predictions or the references"),
        ({3: "a"}, {3: ["a"]}, DOMAINS, "3 images stand in the predictions or the domains"),
        ({3: "a"}, {3: ["a"]}, {3: "entire"}, "'entire' is none of in-domain"),
        ({3: None}, {3: ["a"]}, {3: "in-domain"}, "None, which is no text"),
    ],
)
def test_what_cannot_be_scored_is_a_sentence(predictions, references, domains, sentence):
    with pytest.raises(UserError, match=sentence):
        score_nocaps(predictions, references, domains)
