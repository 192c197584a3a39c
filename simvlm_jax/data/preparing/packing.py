"""Chunks of as many tokens as fit, cut between words, out of one document after the other."""

import functools
import re
from collections.abc import Iterator

from simvlm_jax.data.documents import fitting
from simvlm_jax.errors import UserError

WORD = re.compile(r"\S+")
WORDS_REMEMBERED = 1 << 16


class Packer:
    """Fills chunks with words, and counts how many there would be joined and apart."""

    def __init__(self, limit: int, joined: bool, processor):
        """Starts an empty chunk.

        Args:
          limit: most tokens of a chunk.
          joined: whether a chunk may hold several documents.
          processor: a SentencePieceProcessor whose pieces do not cross blanks.
        """
        self._limit, self._joined, self._processor = limit, joined, processor
        self._words: list[str] = []
        self._lengths = {True: 0, False: 0}  # of the open chunks, joined and apart
        self.tokens = 0
        self.chunks = {True: 0, False: 0}

        @functools.lru_cache(WORDS_REMEMBERED)
        def count_tokens(word: str) -> int:
            return len(processor.encode(word))

        self._count_tokens = count_tokens

    def add(self, text: str) -> Iterator[str]:
        """Takes a document, and yields the chunks that it fills."""
        words = (found.group() for found in WORD.finditer(text))
        for word in fitting(words, self._limit, self._count_tokens):
            added = self._count_tokens(word)
            self.tokens += added
            for joined, length in self._lengths.items():
                if length + added > self._limit or not self.chunks[joined]:
                    self._begin(joined)
                    if joined == self._joined:
                        yield from self.rest()
                self._lengths[joined] += added
            self._words.append(word)
        self._lengths[False] = self._limit + 1  # the next document begins another chunk
        if not self._joined:
            yield from self.rest()

    def rest(self) -> Iterator[str]:
        """Yields the chunk that is not full, if it has words.

        Raises:
          UserError: the vocabulary has pieces that cross blanks, so lengths do not add up.
        """
        if self._words:
            chunk = " ".join(self._words)
            self._words.clear()
            if len(self._processor.encode(chunk)) > self._limit:
                raise UserError(
                    "The vocabulary cannot be used to cut documents: words have more tokens "
                    "together than one by one; train one with `simvlm prepare vocabulary`."
                )
            yield chunk

    def _begin(self, joined: bool) -> None:
        self.chunks[joined] += 1
        self._lengths[joined] = 0
