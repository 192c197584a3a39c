from collections import defaultdict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simvlm_jax.errors import UserError
from simvlm_jax.evaluation.nlvr2 import score_nlvr2, sentence_of


def test_the_example():
    labels = {"dev-1-0-0": "True", "dev-1-1-0": "False", "dev-2-0-0": "True"}
    given_ = {"dev-1-0-0": "true", "dev-1-1-0": "True", "dev-2-0-0": True}
    assert score_nlvr2(given_, labels) == pytest.approx({"accuracy": 2 / 3, "consistency": 0.5})


def test_pairs_share_a_sentence_and_two_sentences_of_a_pair_do_not():
    assert sentence_of("dev-850-2-0") == sentence_of("dev-850-0-0") == "dev-850--0"
    assert sentence_of("dev-850-2-1") != sentence_of("dev-850-2-0")
    assert sentence_of("dev-851-2-0") != sentence_of("dev-850-2-0")
    assert sentence_of("test1-1-2-0") != sentence_of("test2-1-2-0")


identifiers = st.builds(
    "{}-{}-{}-{}".format,
    st.sampled_from(["dev", "test1"]),
    st.integers(0, 3),
    st.integers(0, 3),
    st.integers(0, 1),
)


@settings(deadline=None, max_examples=200)
@given(st.dictionaries(identifiers, st.tuples(st.booleans(), st.booleans()), min_size=1))
def test_scores_equal_a_count_over_groups(examples):
    groups = defaultdict(list)
    for identifier, (mine, theirs) in examples.items():
        split, images, _, sentence = identifier.split("-")
        groups[split, images, sentence].append(mine is theirs)
    labels = {name: str(label) for name, (_, label) in examples.items()}
    found = score_nlvr2({name: str(mine) for name, (mine, _) in examples.items()}, labels)
    right = [hit for group in groups.values() for hit in group]
    assert found["accuracy"] == pytest.approx(sum(right) / len(right))
    assert found["consistency"] == pytest.approx(sum(map(all, groups.values())) / len(groups))


@pytest.mark.parametrize(
    ("predictions", "labels", "sentence"),
    [
        ({}, {}, "0 labels"),
        ({}, {"dev-1-0-0": "True"}, "1 of 1 examples have no prediction"),
        ({"dev-1-0-0": "True", "x": "True"}, {"dev-1-0-0": "True"}, "'x' is one"),
        ({"dev-1-0": "True"}, {"dev-1-0": "True"}, "'dev-1-0' is no NLVR2 identifier"),
        ({7: "True"}, {7: "True"}, "7 is no NLVR2 identifier"),
        ({"dev-1-0-0": 1}, {"dev-1-0-0": "True"}, "1 is neither True nor False"),
        ({"dev-1-0-0": "True"}, {"dev-1-0-0": ""}, "'' is neither True nor False"),
    ],
)
def test_what_cannot_be_scored_is_a_sentence(predictions, labels, sentence):
    with pytest.raises(UserError, match=sentence):
        score_nlvr2(predictions, labels)
