"""The SentencePiece vocabulary: training it, and the lazy default that tasks share."""

import io
import re
import tempfile
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import seqio

from simvlm_jax.data import pieces
from simvlm_jax.data.paths import PREPARE_COMMAND, VOCABULARY_NAME, data_dir
from simvlm_jax.errors import UserError

SENTINELS = 48
PAD_ID, EOS_ID, UNK_ID = 0, 1, 2
# A byte fallback would spend 256 pieces. These characters always have a piece of their own:
# printable ASCII and the letters of Latin-1, so no German or French letter is ever unknown.
ASCII = "".join(chr(code) for code in range(0x21, 0x7F))
LATIN = "".join(chr(code) for code in range(0xC0, 0x100) if code not in (0xD7, 0xF7))
TRAINER_OPTIONS = {
    "model_type": "unigram",
    "pad_id": PAD_ID,
    "eos_id": EOS_ID,
    "unk_id": UNK_ID,
    "bos_id": -1,
    "character_coverage": 1.0,
    "required_chars": ASCII + LATIN,
    "max_sentence_length": 1 << 24,  # bytes; longer ones would be dropped silently
    "num_threads": 1,  # the order of floating-point sums, and so the file, depends on it
    "minloglevel": 2,
}
LONGEST_PIECE = 16  # characters, the trainer's own limit
# Most candidates are parts of frequent words, and the trainer drops them early: 320,000 of them
# left 27,815 pieces. 20,000 are enough for the 2,000 pieces of the demo.
MOST_SEEDS, SMALL_SIZE, SEEDS_PER_PIECE = 20_000, 2_000, 50
MOST_WORDS = 200_000  # whose substrings are counted: of a million sentences memory is bounded


class DefaultVocabulary(seqio.SentencePieceVocabulary):
    """The vocabulary in the data folder, found at each use, so a task can be made without it."""

    def __init__(self, extra_ids: int = SENTINELS):
        """Describes the vocabulary without opening it.

        Args:
          extra_ids: sentinels at the end of the ids, the first one highest (T5's order).
        """
        super().__init__(f"<data_dir>/{VOCABULARY_NAME}", extra_ids=extra_ids)

    @property
    def sentencepiece_model_file(self) -> str:
        """The model's path in the data folder of this moment."""
        return str(data_dir() / VOCABULARY_NAME)

    def _model_context(self):
        path = self.sentencepiece_model_file
        if self._model is None or self._model[0] != path:
            if not Path(path).is_file():
                raise UserError(
                    f"There is no vocabulary {path}; make it from your texts with `simvlm prepare "
                    f"vocabulary`, or run `{PREPARE_COMMAND}` for the demo's."
                )
            pieces.check_size(path)
            pieces.open_pieces(Path(path).read_bytes(), path)  # seqio's own errors name no file
            opened = seqio.SentencePieceVocabulary(path, extra_ids=self._extra_ids)
            self._model = (path, opened._model_context())
        return self._model[1]


def default_vocabulary() -> seqio.SentencePieceVocabulary:
    """Returns the vocabulary of the data folder, with SENTINELS extra ids at its end.

    It is opened at first use; two of them are equal, as seqio demands of a mixture's tasks.
    """
    return DefaultVocabulary()


def train_vocabulary(texts: Iterable[str], path: str | Path, size: int) -> None:
    """Trains a unigram SentencePiece model; the same texts give the same file.

    Ids: pad 0, end of sequence 1, unknown 2, no begin of sequence.

    Args:
      texts: training texts, of any length.
      path: the model file to write.
      size: number of pieces, sentinels not counted.

    Raises:
      UserError: the texts are too few for so many pieces, or too rich for so few.
    """
    import sentencepiece

    texts = list(texts)
    model = io.BytesIO()
    with tempfile.NamedTemporaryFile("w", encoding="utf-8", suffix=".tsv") as seeds:
        seeds.writelines(f"{piece}\t{count}\n" for piece, count in _seed_pieces(texts, size))
        seeds.flush()
        try:
            sentencepiece.SentencePieceTrainer.train(
                sentence_iterator=iter(texts),
                model_writer=model,
                seed_sentencepieces_file=seeds.name,
                vocab_size=size,
                **TRAINER_OPTIONS,
            )
        except RuntimeError as error:
            raise UserError(_size_problem(size, str(error))) from error
    # The path of the temporary file would make every model differ.
    Path(path).write_bytes(_without_seed_path(model.getvalue()))


def _seed_pieces(texts: list[str], size: int) -> list[tuple[str, int]]:
    """Counts the substrings of all words, the best candidates for pieces first.

    The trainer's own candidates come from the list of distinct words: a frequent word that is
    part of no other ("skin" in 1,500 captions) is none of them, and falls apart.
    """
    words = Counter(f"{pieces.WORD_START}{word}" for text in texts for word in text.split())
    counts: Counter[str] = Counter()
    for word, number in words.most_common(MOST_WORDS):
        for start in range(len(word)):
            for end in range(start + 2, min(len(word), start + LONGEST_PIECE) + 1):
                counts[word[start:end]] += number
    repeated = [(piece, number) for piece, number in counts.items() if number > 1]
    repeated.sort(key=lambda item: (-item[1] * len(item[0]), item[0]))
    return repeated[: MOST_SEEDS + SEEDS_PER_PIECE * max(0, size - SMALL_SIZE)]


def _without_seed_path(model: bytes) -> bytes:
    from sentencepiece import sentencepiece_model_pb2

    proto = sentencepiece_model_pb2.ModelProto.FromString(model)
    proto.trainer_spec.ClearField("seed_sentencepieces_file")
    return proto.SerializeToString(deterministic=True)


def _size_problem(size: int, message: str) -> str:
    if limit := re.search(r"value <= (\d+)", message):
        advice = f"the texts allow at most {limit[1]}"
    elif limit := re.search(r"required_chars\. \d+ vs (\d+)", message):
        advice = f"the characters alone need {limit[1]}"
    else:
        advice = message.strip().splitlines()[-1]
    return f"A vocabulary of {size} pieces cannot be trained on these texts: {advice}."
