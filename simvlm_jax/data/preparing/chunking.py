"""Prepares documents: texts cut between words into chunks of as many tokens as fit.

Consecutive documents are joined, so that short ones leave no padding. Each part of the input
packs for itself: a part's last chunk is not full, and nothing depends on the number of processes.
"""

import dataclasses
import functools
import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from simvlm_jax.data.documents import fitting
from simvlm_jax.data.preparing import choosing, examples, report, shards
from simvlm_jax.data.preparing.data_sets import DataSet
from simvlm_jax.data.preparing.examining import open_vocabulary, short_hash
from simvlm_jax.data.preparing.inputs import Input, fingerprint
from simvlm_jax.data.preparing.pairs import MOST_REFUSED_NAMED, require_fields
from simvlm_jax.data.preparing.work import (
    Job,
    Report,
    file_digest,
    read_result,
    run_job,
    write_whole,
)
from simvlm_jax.data.records import encode_example
from simvlm_jax.data.sources import ArrayRecordSource, Unreadable
from simvlm_jax.errors import UserError

PART = 1024  # documents that are packed together, at least
MOST_PARTS = 400  # each is a file, and all are open at once in the second pass
READ_AT_ONCE = 4  # a document may have many megabytes
WORD = re.compile(r"\S+")
WORDS_REMEMBERED = 1 << 16
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
                    example = examples.text(example, self._settings.source.text_field)
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


def prepare_documents(
    data_set: DataSet, settings: Settings, vocabulary: Path, workers: int, tell: Report
) -> tuple[dict, bool]:
    """Prepares documents, or verifies what an earlier run with the same settings has left.

    Args:
      data_set: what to make.
      settings: how.
      vocabulary: a SentencePiece model.
      workers: processes.
      tell: told the progress.

    Returns:
      (the summary, whether an earlier run had made it).

    Raises:
      UserError: see `DataSet` and `Input`; there is no vocabulary; or no text is left.
    """
    shards.check_share(settings.validation_share, data_set.split)
    if not vocabulary.is_file():
        raise UserError(
            f"There is no vocabulary {vocabulary}; train one with `simvlm prepare vocabulary` or "
            "name one with --vocabulary."
        )
    splits = [data_set.split, *([choosing.VALIDATION] if settings.validation_share else [])]
    records = settings.source.open()
    described = {
        **dataclasses.asdict(settings),
        "input_digest": fingerprint(records),
        "vocabulary": file_digest(vocabulary),
    }
    if found := data_set.finished(described, tuple(splits)):
        return found, True
    require_fields(records, {"field": settings.source.text_field}, settings.source.path)
    with data_set.working(described) as stage:
        chunks = stage / "chunks"
        chunks.mkdir(exist_ok=True)
        job = Chunking(settings, splits, chunks, str(vocabulary), len(records))
        run_job(job, stage / "cut", workers, tell)
        cut = [json.loads(read_result(stage / "cut", part)) for part in range(len(job.parts()))]
        refused = [json.dumps(entry) + "\n" for part in cut for entry in part["refused"]]
        text = "".join(refused[:MOST_REFUSED_NAMED])
        write_whole(data_set.file("rejected.jsonl"), text.encode())
        summary = {"settings": described, **_described(cut, splits, settings, len(records))}
        for split, count in summary["records"].items():
            if not count:
                raise UserError(
                    f"No text is left for the split {split}; see {data_set.file('rejected.jsonl')}."
                )
        facts = _write(stage, len(cut), summary["records"], settings, workers, tell)
        page = report.documents_page(data_set.folder.name, summary)
        write_whole(data_set.file("report.html"), page.encode())
        return data_set.install(stage / "shards", facts, summary), False


def _described(cut: list[dict], splits: list[str], settings: Settings, count: int) -> dict:
    causes: Counter[str] = Counter()
    for part in cut:
        causes.update(part["causes"])
    files = [file for part in cut for file in part["files"].values()]
    tokens = sum(file["tokens"] for file in files)
    shares = {}
    for how in ("joined", "apart"):
        chunks = sum(file["chunks"][how] for file in files)
        # Each chunk ends with the end of sequence.
        shares[how] = 1 - (tokens + chunks) / max(1, chunks * (settings.limit + 1))
    return {
        "outcomes": {"kept": count - causes.total(), "refused": causes.total()},
        "causes": dict(causes.most_common()),
        "records": {s: sum(part["files"][s]["records"] for part in cut) for s in splits},
        "tokens": tokens,
        "pad_share": shares,
    }


def _write(
    stage: Path,
    parts: int,
    records: dict[str, int],
    settings: Settings,
    workers: int,
    tell: Report,
) -> list[dict]:
    facts, first_id = [], 0
    for number, (split, count) in enumerate(records.items()):
        wanted = settings.shards if number == 0 else None
        counts = shards.shard_counts(count, wanted, settings.records_per_shard)
        chunks = [str(chunk_path(stage / "chunks", split, part)) for part in range(parts)]
        job = ChunkWriting(
            stage / "shards",
            split,
            counts,
            settings.output_format,
            chunks=chunks,
            first_id=first_id,
        )
        facts += job.write(stage, workers, tell)
        first_id += count
    return facts
