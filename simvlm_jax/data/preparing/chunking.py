"""The two passes over documents: cut them into files of chunks, then write those into shards.

Consecutive documents are joined, so that short ones leave no padding. Each part of the input
packs for itself: a part's last chunk is not full, and nothing depends on the number of processes.
"""

import dataclasses
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from simvlm_jax.data.preparing import choosing, examples, shards
from simvlm_jax.data.preparing.examining import open_vocabulary, short_hash
from simvlm_jax.data.preparing.inputs import Input
from simvlm_jax.data.preparing.packing import Packer
from simvlm_jax.data.preparing.work import Job, file_digest
from simvlm_jax.data.records import encode_example
from simvlm_jax.data.sources import ArrayRecordSource, Unreadable

PART = 1024  # documents that are packed together, at least
MOST_PARTS = 400  # each is a file, and all are open at once in the second pass
READ_AT_ONCE = 4  # a document may have many megabytes
REFUSED_NAMED_IN_PART = 100


@dataclasses.dataclass(frozen=True)
class Settings:
    """All that the bytes of a data set of documents depend on.

    Attributes:
      source: what to read.
      limit: most tokens in a chunk, the end of sequence not counted.
      joined: whether a chunk may hold several documents.
      validation_share: of all documents, how many go to the split "validation".
      seed: of that choice.
      output_format: one of shards.OUTPUT_FORMATS.
      shards: how many files for the main split, or None.
      records_per_shard: at most so many chunks in a file, or None.
    """

    source: Input
    limit: int = 511
    joined: bool = True
    validation_share: float = 0.0
    seed: int = 0
    output_format: str = "array_record"
    shards: int | None = None
    records_per_shard: int | None = None


class Chunking(Job):
    """Cuts the documents of an input into files of chunks."""

    name = "cutting documents"

    def __init__(self, settings: Settings, splits: list[str], folder: Path, vocabulary: str, count):
        """Describes the work.

        Args:
          settings: how to cut.
          splits: the main split, and the one for what is held out.
          folder: where the chunks go.
          vocabulary: path of a SentencePiece model.
          count: records of the input.
        """
        self._settings, self._splits, self._folder = settings, splits, folder
        self._vocabulary, self._count = vocabulary, count
        self._size = max(PART, -(-count // MOST_PARTS))

    def parts(self) -> list[int]:
        """Returns how many documents each part has."""
        starts = range(0, self._count, self._size)
        return [min(self._size, self._count - start) for start in starts]

    def open(self) -> None:
        """Opens the input and the vocabulary."""
        self._records = self._settings.source.open()
        self._processor = open_vocabulary(self._vocabulary)

    def run(self, part: int) -> bytes:
        """Cuts a part's documents.

        Returns:
          JSON: what was written, counts of tokens and chunks, and refused documents.
        """
        start, settings = part * self._size, self._settings
        causes: Counter[str] = Counter()
        refused: list[dict] = []
        packers, writers, paths = {}, {}, {}
        for split in self._splits:
            packers[split] = Packer(settings.limit, settings.joined, self._processor)
            paths[split] = chunk_path(self._folder, split, part)
            temporary = paths[split].with_suffix(".part")
            writers[split] = shards.open_writer(temporary, "array_record").__enter__()
        for index, text in self._texts(start, min(start + self._size, self._count)):
            if isinstance(text, Unreadable):
                causes[text.cause] += 1
                if len(refused) < REFUSED_NAMED_IN_PART:
                    shard, key = self._records.name(index)
                    refused.append({"shard": shard, "key": key, "cause": text.cause})
                continue
            split = self._split_of(text)
            for chunk in packers[split].add(text):
                writers[split].write(chunk.encode())
        files = {}
        for split, packer in packers.items():
            for chunk in packer.rest():
                writers[split].write(chunk.encode())
            writers[split].__exit__(None, None, None)
            paths[split].with_suffix(".part").replace(paths[split])
            files[split] = {
                "sha256": file_digest(paths[split]),
                "records": packer.chunks[settings.joined],
                "tokens": packer.tokens,
                "chunks": {"joined": packer.chunks[True], "apart": packer.chunks[False]},
            }
        facts = {"part": part, "files": files, "causes": dict(causes), "refused": refused}
        return json.dumps(facts).encode()

    def whole(self, result: bytes) -> bool:
        """Tells whether the chunks that were written before are still there."""
        facts = json.loads(result)
        paths = {s: chunk_path(self._folder, s, facts["part"]) for s in facts["files"]}
        return all(
            paths[split].is_file() and file_digest(paths[split]) == facts["files"][split]["sha256"]
            for split in paths
        )

    def _texts(self, start: int, end: int) -> Iterator[tuple[int, str | Unreadable]]:
        for first in range(start, end, READ_AT_ONCE):
            indices = range(first, min(first + READ_AT_ONCE, end))
            for index, record in zip(indices, self._records.read(indices), strict=True):
                example = examples.parse(record)
                if not isinstance(example, Unreadable):
                    example = examples.text(example, self._settings.source.text_name)
                yield index, example

    def _split_of(self, text: str) -> str:
        if len(self._splits) == 1:
            return self._splits[0]
        hashed = np.array([short_hash(text.encode())], np.uint64)
        aside = choosing.is_aside(hashed, self._settings.validation_share, self._settings.seed)
        return self._splits[int(aside[0])]


class ChunkWriting(shards.Writing):
    """Writes chunks into shards; their numbers are their `id`."""

    def __init__(self, *arguments, chunks: list[str], first_id: int):
        """Describes the work.

        Args:
          *arguments: of `Writing`.
          chunks: the files of chunks, in order.
          first_id: the number of the first chunk.
        """
        super().__init__(*arguments)
        self._chunks, self._first_id = chunks, first_id

    def open(self) -> None:
        """Opens the files of chunks."""
        self._opened = ArrayRecordSource("chunks", ["chunks"], {}).open(self._chunks)

    def records(self, start: int, end: int) -> list[bytes]:
        """Returns chunks with `id` and `text`."""
        found = enumerate(self._opened.read(range(start, end)), self._first_id + start)
        return [encode_example({"id": number, "text": text}) for number, text in found]


def chunk_path(folder: Path, split: str, part: int) -> Path:
    """Returns where a part's chunks lie."""
    return folder / f"{split}-{part:06d}.array_record"
