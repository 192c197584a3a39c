import io

import pytest
import sentencepiece

from simvlm_jax.data.pieces import Word, words_of

TEXTS = ["a picture of a red circle", "two blue squares left and right", "the black cross above"]


@pytest.fixture(scope="module")
def vocabulary():
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXTS * 3),
        model_writer=model,
        vocab_size=32,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        minloglevel=2,
    )
    return sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())


def ids(vocabulary, *pieces):
    found = [vocabulary.PieceToId(piece) for piece in pieces]
    assert vocabulary.unk_id() not in found
    return found


def test_pieces_of_a_word_are_put_together(vocabulary):
    tokens = ids(vocabulary, "▁", "a", "▁", "p", "i") + [1, 0]
    assert words_of(tokens, vocabulary) == [Word("a", (0, 1)), Word("pi", (2, 3, 4))]


def test_words_are_those_of_the_text_in_order_and_hold_every_piece_once(vocabulary):
    for text in TEXTS:
        tokens = vocabulary.EncodeAsIds(text)
        words = words_of([*tokens, 1, 0, 0], vocabulary)
        assert [word.text for word in words] == text.split()
        positions = [place for word in words for place in word.positions]
        assert positions == list(range(len(tokens)))  # so they rise from word to word, too


def test_what_is_no_text_is_in_no_word(vocabulary):
    first, second = ids(vocabulary, "r", "e")
    sentinel = vocabulary.GetPieceSize()
    tokens = [first, sentinel, 0, second, 1, first]
    assert words_of(tokens, vocabulary) == [Word("re", (0, 3))]  # a text may begin within a word
    assert words_of([1, first], vocabulary) == words_of([], vocabulary) == []
    assert words_of(ids(vocabulary, "▁"), vocabulary) == []  # a blank alone is no word
