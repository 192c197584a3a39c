import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simvlm_jax.data import documents


def test_topics_are_the_standard_library():
    texts = documents.topics()
    assert len(texts) > 70 and sum(map(len, texts.values())) > 300_000


def test_split_is_of_whole_documents_and_seeded():
    names = [f"document {index}" for index in range(79)]
    training, validation = documents.split(names, seed=0)
    assert len(validation) == 4 and sorted(training + validation) == sorted(names)
    assert documents.split(names[::-1], seed=0) == (training, validation)
    assert documents.split(names, seed=1)[1] != validation
    assert len(documents.split(["one", "two"], seed=0)[1]) == 1


TEXT = """
The "yield" statement
*********************

   yield_stmt ::= yield_expression | yield_expression "," yield_expression and more

A "yield" statement is semantically equivalent to a yield
expression, or not.

   (yield <expr>) = [x for x in range(10) if x > 3 and y[x] != 4 or z(x)]

+-------------------------+-----------------------------+
| Operation and its names | Result of it and some words |

Short paragraph of five words.
"""


def test_only_prose_is_kept():
    assert documents.paragraphs(TEXT) == [
        'A "yield" statement is semantically equivalent to a yield expression, or not.'
    ]


def test_real_prose_has_no_tables_and_no_grammar():
    prose = [p for text in documents.topics().values() for p in documents.paragraphs(text)]
    assert sum(map(len, prose)) > 250_000
    assert not [p for p in prose if "----" in p or "::=" in p or "\n" in p]


def test_a_paragraph_belongs_to_the_first_document_only():
    shared, mine, yours = (
        f"This is a paragraph of many words about {topic} alone." for topic in ("all", "me", "you")
    )
    texts = {
        "b": f"{shared}\n\n{yours}",
        "a": f"{mine}\n\n{shared.replace(' of ', chr(10) + 'of ')}",
    }
    assert documents.distinct_prose(texts, ["a", "b"]) == {"a": [mine, shared], "b": [yours]}
    assert documents.distinct_prose(texts, ["b", "a"]) == {"b": [shared, yours], "a": [mine]}


def test_no_validation_paragraph_stays_in_training():
    texts = documents.topics()
    training, validation = documents.split(list(texts), seed=0)
    prose = documents.distinct_prose(texts, validation + training)
    held_out = {paragraph for name in validation for paragraph in prose[name]}
    assert held_out == {p for name in validation for p in documents.paragraphs(texts[name])}
    assert not held_out & {paragraph for name in training for paragraph in prose[name]}


def vowels(word):
    """A made-up tokenizer: one token for each word and one more for each vowel."""
    return 1 + sum(character in "aeiou" for character in word)


@settings(deadline=None, max_examples=100)
@given(st.text(alphabet="aebc \n", max_size=200), st.integers(2, 12))
def test_chunks_fit_lose_nothing_and_waste_nothing(text, limit):
    chunks = list(documents.chunks(text, limit, vowels))
    lengths = [sum(map(vowels, chunk.split())) for chunk in chunks]
    assert all(0 < length <= limit for length in lengths)
    assert "".join("".join(chunks).split()) == "".join(text.split())
    for length, following in zip(lengths, chunks[1:], strict=False):
        assert length + vowels(following.split()[0]) > limit
    if all(vowels(word) <= limit for word in text.split()):
        assert " ".join(chunks) == " ".join(text.split())


def test_long_words_are_cut():
    word = "".join(random.Random(0).choices("aeiou", k=50))
    chunks = list(documents.chunks(f"a {word} b", 10, vowels))
    assert "".join(chunks).replace(" ", "") == f"a{word}b"


@pytest.mark.parametrize("text", ["", " \n "])
def test_nothing_gives_no_chunk(text):
    assert list(documents.chunks(text, 5, vowels)) == []
