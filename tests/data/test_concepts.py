import re
from collections import Counter, defaultdict
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simvlm_jax.data import concepts, openmoji
from simvlm_jax.data.concepts import Named, base_concept, parts, split


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("1F469-1F3FD-200D-2695", "1F9D1-200D-2695-FE0F"),  # woman health worker; health worker
        ("1F3C3-1F3FF-200D-2640-200D-27A1", "1F3C3"),  # woman running right, dark; running
        ("1F44D-1F3FB", "1F44D"),  # thumbs up, light
        ("1F46B", "1F9D1-200D-1F91D-200D-1F9D1"),  # a couple holding hands, both spellings
        ("1F48F-1F3FD", "1F469-200D-2764-FE0F-200D-1F48B-200D-1F469"),  # kisses
        ("1F91D-1F3FB", "1FAF1-1F3FB-200D-1FAF2-1F3FC"),  # handshakes
        ("1F478-1F3FD", "1F934"),  # princess, prince
        ("1F936", "1F9D1-200D-1F384"),  # Mrs. and Mx Claus
        ("1F468-200D-1F467", "1F469-200D-1F466"),  # families of one parent and one child
    ],
)
def test_variants_share_a_concept(one, other):
    assert base_concept(one) == base_concept(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("1F469", "1F469-200D-1F9B0"),  # woman; woman with red hair
        ("1F469-200D-1F9B0", "1F469-200D-1F9B1"),  # red hair, curly hair
        ("1F469", "1F467"),  # woman, girl
        ("1F468-200D-1F467", "1F468-200D-1F467-200D-1F466"),  # families of two and three
        ("1F3FB", "1F3FF"),  # swatches of a tone are drawings of their own
        ("27A1", "2B05"),  # arrows alone are no directions of something
        ("1F642-200D-2194", "1F642-200D-2195"),  # shaking and nodding
        ("1F1E9-1F1EA", "1F1E6-1F1F9"),  # flags
    ],
)
def test_different_things_do_not(one, other):
    assert base_concept(one) != base_concept(other)


def test_parts():
    assert parts("1F469-1F3FD-200D-2695") == {0x1F469, 0x1F3FD}
    assert parts("1F3C3-1F3FF-200D-2640-200D-27A1") == {0x1F3FF, 0x2640, 0x27A1}
    assert parts("1F600") == set()


@pytest.fixture(scope="module")
def catalogue():
    return openmoji.catalogue()


def test_concepts_agree_with_the_names(catalogue):
    """One concept: names that differ only in who, tone and direction; nothing else is merged."""
    concepts_of, names_of = defaultdict(set), defaultdict(set)
    for example in catalogue:
        name = example.caption
        if example.group != "flag":
            name = name.split(":")[0].replace(" facing right", "")
            name = re.sub(r"\b(wo)?m[ae]n\b|\b(person|people)\b", "", name)
        concepts_of[" ".join(name.split())].add(example.concept)
        names_of[example.concept].add(" ".join(name.split()))
    # "bald" is also a component alone; a family's concept is its size.
    assert {name for name, found in concepts_of.items() if len(found) > 1} == {"bald", "family"}
    assert sorted(sorted(found) for found in names_of.values() if len(found) > 1) == [
        ["Mrs. Claus", "Mx Claus", "Santa Claus"],
        ["and holding hands", "holding hands"],
        ["boy", "child", "girl"],
        ["female sign", "male sign"],
        ["mermaid", "merman", "merperson"],
        ["old", "older"],
        ["prince", "princess", "with crown"],
    ]


def test_real_split(catalogue):
    chosen = split(catalogue, seed=0)
    by_split = defaultdict(list)
    for example in catalogue:
        by_split[chosen[example.codepoints]].append(example)
    counts = {name: len(members) for name, members in by_split.items()}
    assert sum(counts.values()) == len(catalogue) > 3900
    assert 250 <= counts["variants"] <= 350
    assert 150 <= counts["concepts"] <= 0.16 * len(catalogue)
    check_split({e.codepoints: e for e in catalogue}, chosen)
    held_out = {e.concept for e in by_split["concepts"]}
    assert len(held_out) == round(0.08 * len({e.concept for e in catalogue}))
    assert {e.identity for e in catalogue} == set(range(len(catalogue)))


def check_split(examples, chosen, fewest_variants=4):
    assert chosen.keys() == examples.keys()
    train = [examples[key] for key, name in chosen.items() if name == "train"]
    variants = [examples[key] for key, name in chosen.items() if name == "variants"]
    unseen = [examples[key] for key, name in chosen.items() if name == "concepts"]
    in_train = Counter(base_concept(e.codepoints) for e in train)
    assert not in_train.keys() & {base_concept(e.codepoints) for e in unseen}
    for concept, number in Counter(base_concept(e.codepoints) for e in variants).items():
        assert in_train[concept] > number and in_train[concept] + number >= fewest_variants
    texts = {e.caption.casefold() for e in train}
    assert not texts & {e.caption.casefold() for e in variants + unseen}
    seen = set().union(*(parts(e.codepoints) for e in train)) if train else set()
    assert all(parts(e.codepoints) <= seen for e in variants)


TONES = ["", "-1F3FB", "-1F3FC", "-1F3FD", "-1F3FE", "-1F3FF"]
GENDERS = ["", "-200D-2640", "-200D-2642"]


@st.composite
def collections(draw):
    """Examples of a few concepts with some of their variants, and captions that may collide."""
    keys = draw(
        st.lists(
            st.tuples(
                st.integers(0x1F900, 0x1F906), st.sampled_from(TONES), st.sampled_from(GENDERS)
            ),
            unique=True,
            max_size=60,
        )
    )
    keys = [f"{base:04X}{tone}{gender}" for base, tone, gender in keys]
    texts = st.sampled_from(["Cat", "cat", "dog"]) | st.uuids().map(str)
    return [Named(key, draw(texts)) for key in keys]


@settings(deadline=None, max_examples=60)
@given(collections(), st.integers(0, 5), st.sampled_from([0, 8, 30, 60]))
def test_any_split_is_clean(examples, seed, percent):
    chosen = split(examples, seed, Fraction(percent, 100), Fraction(1, 4))
    check_split({e.codepoints: e for e in examples}, chosen)
    assert chosen == split(examples[::-1], seed, Fraction(percent, 100), Fraction(1, 4))
    if percent == 0:
        assert "concepts" not in chosen.values()


def test_seed_changes_the_split(catalogue):
    first, second = split(catalogue, 0), split(catalogue, 1)
    assert first == split(catalogue, 0)
    held = [{k for k, v in s.items() if v == concepts.CONCEPTS} for s in (first, second)]
    assert len(held[0] & held[1]) < 0.4 * len(held[0])
