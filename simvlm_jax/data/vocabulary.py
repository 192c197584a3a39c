"""The SentencePiece vocabulary: training it, and the lazy default that tasks share."""

import io
import re
from collections.abc import Iterable
from pathlib import Path

import seqio

from simvlm_jax.data.paths import PREPARE_COMMAND, VOCABULARY_NAME, data_dir
from simvlm_jax.errors import UserError

SENTINELS = 48
PAD_ID, EOS_ID, UNK_ID = 0, 1, 2
# A byte fallback would spend 256 pieces. These characters always have a piece of their own:
# printable ASCII and the letters of Latin-1, so no German or French letter is ever unknown.
ASCII = "".join(chr(code) for code in range(0x21, 0x7F))
LATIN = "".join(chr(code) for code in range(0xC0, 0x100) if code not in (0xD7, 0xF7))
LONGEST_SENTENCE = 1 << 24  # bytes; the trainer silently drops longer ones


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
                raise UserError(f"There is no vocabulary {path}; run `{PREPARE_COMMAND}` first.")
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

    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(texts),
            model_writer=model,
            model_type="unigram",
            vocab_size=size,
            pad_id=PAD_ID,
            eos_id=EOS_ID,
            unk_id=UNK_ID,
            bos_id=-1,
            character_coverage=1.0,
            required_chars=ASCII + LATIN,
            max_sentence_length=LONGEST_SENTENCE,
            num_threads=1,  # the order of floating-point sums, and so the file, depends on it
            minloglevel=2,
        )
    except RuntimeError as error:
        raise UserError(_size_problem(size, str(error))) from error
    Path(path).write_bytes(model.getvalue())


def _size_problem(size: int, message: str) -> str:
    limit = re.search(r"value (<=|>=)\s*(\d+)", message)
    advice = f"use a value {limit[1]} {limit[2]}" if limit else message.strip().splitlines()[-1]
    return f"A vocabulary of {size} pieces cannot be trained on these texts: {advice}."
