import time

import pytest
import sentencepiece
from hypothesis import given, settings
from hypothesis import strategies as st

from simvlm_jax.data.preparing.packing import Packer
from simvlm_jax.errors import UserError


class Letters:
    """A tokenizer with one token for each letter, however they are joined."""

    def encode(self, text):
        return list(text.replace(" ", ""))


def pack(texts, limit, joined):
    packer = Packer(limit, joined, Letters())
    chunks = [chunk for text in texts for chunk in packer.add(text)]
    return chunks + list(packer.rest()), packer


def greedy(words, limit):
    """Another way to the same chunks: take words as long as they fit."""
    chunks = []
    for word in words:
        if chunks and sum(map(len, chunks[-1])) + len(word) <= limit:
            chunks[-1].append(word)
        else:
            chunks.append([word])
    return [" ".join(chunk) for chunk in chunks]


texts = st.lists(
    st.lists(st.text("abc", min_size=1, max_size=6), min_size=1, max_size=9), max_size=9
)


@settings(deadline=None)
@given(documents=texts, limit=st.integers(6, 20))
def test_chunks_are_as_long_as_fits(documents, limit):
    lines = ["  \n".join(words) for words in documents]
    joined, packer = pack(lines, limit, True)
    assert joined == greedy([word for words in documents for word in words], limit)
    apart, other = pack(lines, limit, False)
    assert apart == [chunk for words in documents for chunk in greedy(words, limit)]
    for counted in (packer, other):
        assert counted.chunks == {True: len(joined), False: len(apart)}
        assert counted.tokens == sum(len(word) for words in documents for word in words)


def test_a_word_that_is_too_long_is_cut():
    chunks, packer = pack(["ab " + "c" * 37], 10, True)
    assert "".join(chunks).replace(" ", "") == "ab" + "c" * 37
    assert all(len(chunk.replace(" ", "")) <= 10 for chunk in chunks)
    assert packer.tokens == 39


def test_real_pieces_add_up(made_data):
    processor = sentencepiece.SentencePieceProcessor(model_file=str(made_data / "vocabulary.model"))
    packer = Packer(32, True, processor)
    texts = ["red circle: left", "grün Kreuz " * 40, "never\tx\u200by \u3000z"] * 5
    chunks = [chunk for text in texts for chunk in packer.add(text)] + list(packer.rest())
    lengths = [len(processor.encode(chunk)) for chunk in chunks]
    assert sum(lengths) == packer.tokens and max(lengths) <= 32
    assert sum(lengths) / len(lengths) > 26  # hardly anything is wasted


class Merging(Letters):
    def encode(self, text):
        return list(text)  # blanks count too


def test_a_vocabulary_whose_pieces_cross_blanks_is_refused():
    packer = Packer(8, True, Merging())
    with pytest.raises(UserError, match="cannot be used to cut documents"):
        list(packer.add("ab cd ef gh ij"))


@pytest.mark.parametrize(
    "text", ["word and another " * 600_000, "x" * 10_000_000, "é\u200d" * 3_000_000]
)
def test_ten_megabytes_take_seconds(made_data, text):
    processor = sentencepiece.SentencePieceProcessor(model_file=str(made_data / "vocabulary.model"))
    packer = Packer(511, True, processor)

    def seconds(text):
        start = time.process_time()
        for _ in packer.add(text):
            pass
        return time.process_time() - start

    short = max(seconds(text[: len(text) // 20]), 0.05)
    assert seconds(text) < 20 * 4 * short  # a quadratic cost would be 400 times
