import copy
import pickle

import pytest
import sentencepiece

from simvlm_jax.data import vocabulary
from simvlm_jax.errors import UserError

TEXTS = [
    f"a picture of {thing}: {tone} skin tone"
    for thing in ("woman running", "man running", "clapping hands", "fairy", "schöne größe")
    for tone in ("light", "dark", "medium")
] + ["Objects are Python's abstraction for data. All data is represented by objects. " * 3]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("vocabulary")
    vocabulary.train_vocabulary(TEXTS, folder / "vocabulary.model", 180)
    return folder


@pytest.fixture
def default(folder, monkeypatch):
    monkeypatch.setenv("SIMVLM_DATA_DIR", str(folder))
    return vocabulary.default_vocabulary()


def test_training_twice_gives_the_same_file(folder, tmp_path):
    vocabulary.train_vocabulary(iter(TEXTS), tmp_path / "again.model", 180)
    assert (tmp_path / "again.model").read_bytes() == (folder / "vocabulary.model").read_bytes()


def test_ids(default, folder):
    processor = sentencepiece.SentencePieceProcessor(model_file=str(folder / "vocabulary.model"))
    assert processor.get_piece_size() == 180
    assert [processor.pad_id(), processor.eos_id(), processor.unk_id()] == [0, 1, 2]
    assert processor.bos_id() == -1
    assert (default.pad_id, default.eos_id, default.unk_id) == (0, 1, 2)
    assert default.vocab_size == 180 + 48


def test_sentinels_are_the_last_ids_in_reverse_order(default):
    size = default.vocab_size
    for number in (0, 1, 47):
        assert default.encode(f"<extra_id_{number}>") == [size - 1 - number]


def test_no_german_letter_and_no_ascii_is_unknown(default):
    for character in "äöüÄÖÜßéÅç" + "".join(map(chr, range(33, 127))):
        tokens = default.encode(character)
        assert vocabulary.UNK_ID not in tokens
        assert default.decode(tokens) == character
    assert vocabulary.UNK_ID in default.encode("漢")


def test_frequent_words_are_single_pieces(default):
    # "skin" is part of no other word: the trainer's own candidates would not contain it.
    for word in ("skin", "tone", "picture"):
        assert len(default.encode(word)) == 1


def test_tokens_never_cross_a_blank(default):
    words = "a picture of woman running dark skin tone objects".split()
    assert default.encode(" ".join(words)) == [t for word in words for t in default.encode(word)]


def test_tensorflow_and_python_agree(default):
    for text in TEXTS:
        assert default.encode_tf(text).numpy().tolist() == default.encode(text)


def test_file_is_found_at_each_use(default, folder, tmp_path, monkeypatch):
    before = default.encode("picture")
    monkeypatch.setenv("SIMVLM_DATA_DIR", str(tmp_path))
    with pytest.raises(UserError, match="no vocabulary .*vocabulary.model; make it"):
        default.encode("picture")
    vocabulary.train_vocabulary(["another small text of words"] * 3, folder / "other", 160)
    (tmp_path / "vocabulary.model").write_bytes((folder / "other").read_bytes())
    assert default.vocab_size == 160 + 48
    monkeypatch.setenv("SIMVLM_DATA_DIR", str(folder))
    assert default.encode("picture") == before


def test_default_vocabularies_are_equal_used_or_not(default):
    default.encode("picture")
    assert default == vocabulary.default_vocabulary()
    assert default != vocabulary.DefaultVocabulary(extra_ids=0)
    for twin in (copy.deepcopy(default), pickle.loads(pickle.dumps(default))):
        assert twin == default
        assert twin.encode("picture") == default.encode("picture")


def test_impossible_sizes_are_said_in_one_sentence(tmp_path):
    with pytest.raises(UserError, match=r"2000 pieces .* at most \d+\.$"):
        vocabulary.train_vocabulary(TEXTS, tmp_path / "model", 2000)
    with pytest.raises(UserError, match=r"100 pieces .* characters alone need \d+\.$"):
        vocabulary.train_vocabulary(TEXTS, tmp_path / "model", 100)
    assert not (tmp_path / "model").exists()


def test_a_file_that_is_no_model_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("SIMVLM_DATA_DIR", str(tmp_path))
    (tmp_path / "vocabulary.model").write_bytes(b"no model")
    with pytest.raises(UserError, match="is not a SentencePiece model"):
        vocabulary.default_vocabulary().encode("a")
