"""A bounded sample of sentences from any inputs, and the vocabulary that is trained on it."""

import dataclasses
import hashlib
import heapq
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from simvlm_jax.data.preparing import examples
from simvlm_jax.data.preparing.inputs import CAPTION, NAMED, TEXT, Input, relative_shards
from simvlm_jax.data.preparing.work import Report, file_digest, write_whole
from simvlm_jax.data.sources import Records, Unreadable
from simvlm_jax.data.summary import OWN_VOCABULARY
from simvlm_jax.data.vocabulary import train_vocabulary
from simvlm_jax.errors import UserError

TEXT_FIELDS = (CAPTION, TEXT)  # looked for where no field is named
LONGEST_SENTENCE = 1000  # characters; what is longer is cut between words
READ_AT_ONCE = 8
RECORDS_PROBED = 64


def make_vocabulary(
    sources: Sequence[Input], output: Path, size: int, most: int, seed: int, tell: Report
) -> bool:
    """Trains a vocabulary on a sample of the inputs' sentences and writes it.

    Args:
      sources: where the texts are.
      output: the model file.
      size: pieces.
      most: sentences in the sample.
      seed: another one draws other sentences.
      tell: told the progress.

    Returns:
      Whether the same model was there already.

    Raises:
      UserError: another model is there, there is no text, or it does not fit the size.
    """
    sample = draw(sources, most, seed, tell)
    tell(f"training {size} pieces on {len(sample)} sentences", 0, 1)
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        made = output.with_name(f".{output.name}.new")
        train_vocabulary(sample, made, size)
    except OSError as error:
        raise UserError(f"{output} cannot be written ({error.strerror}).") from error
    try:
        if output.exists():
            if file_digest(output) == file_digest(made):
                return True
            raise UserError(
                f"{output} is another vocabulary, and data may depend on it; write to another "
                "--output, or delete it."
            )
        facts = {
            "settings": {"vocabulary_size": size, "sample": most, "seed": seed},
            "inputs": [source.path for source in sources],
            "sentences": len(sample),
            "sha256": file_digest(made),
        }
        text = json.dumps(facts, indent=2, ensure_ascii=False) + "\n"
        if output.with_suffix(".json").name == OWN_VOCABULARY:
            write_whole(output.with_suffix(".json"), text.encode())
        made.replace(output)
    finally:
        made.unlink(missing_ok=True)
    return False


def draw(sources: Sequence[Input], most: int, seed: int, tell: Report) -> list[str]:
    """Draws sentences by a hash of where they are: those with the smallest, all alike in chance.

    Args:
      sources: where the texts are.
      most: sentences at most; so many are held in memory.
      seed: part of the hash.
      tell: told the progress.

    Returns:
      Sentences in the order of the inputs.

    Raises:
      UserError: there is no text in the field that was named, or else in `text` or `caption`.
    """
    heap: list[tuple[int, int, str]] = []  # (negative hash, running number, sentence)
    number = 0
    for source in sources:
        if not source.text_field and source.kind in NAMED:
            source = dataclasses.replace(source, text_field=TEXT)
        records = source.open()
        field = source.text_name or text_field(records, source.path)
        what = f"reading {source.path}"
        places = relative_shards(records)
        for index, text in _texts(records, field, what, tell):
            shard, position = records.place(index)
            for count, sentence in enumerate(_sentences(text)):
                rank = _rank(f"{seed}/{places[shard]}/{position}/{count}")
                number += 1
                if len(heap) < most:
                    heapq.heappush(heap, (-rank, number, sentence))
                elif -rank > heap[0][0]:
                    heapq.heapreplace(heap, (-rank, number, sentence))
    if not heap:
        raise UserError(
            f"There is no text in {', '.join(source.path for source in sources)}; name the field "
            "that has it with --field."
        )
    return [sentence for _, _, sentence in sorted(heap, key=lambda item: item[1])]


def text_field(records: Records, path: str) -> str:
    """Returns the first of TEXT_FIELDS that the first records have.

    Raises:
      UserError: they have none.
    """
    seen: set[str] = set()
    for index in range(min(RECORDS_PROBED, len(records))):
        example = examples.parse(records.read([index])[0])
        if not isinstance(example, Unreadable):
            seen.update(examples.names(example))
    for name in TEXT_FIELDS:
        if name in seen:
            return name
    raise UserError(
        f"The records of {path} have no field {' or '.join(TEXT_FIELDS)}; they have "
        f"{', '.join(sorted(seen)) or 'none'}: choose with --field."
    )


def _texts(records: Records, field: str, what: str, tell: Report) -> Iterator[tuple[int, str]]:
    total = len(records)
    for first in range(0, total, READ_AT_ONCE):
        indices = range(first, min(first + READ_AT_ONCE, total))
        for index, record in zip(indices, records.read(indices), strict=True):
            example = examples.parse(record)
            if not isinstance(example, Unreadable):
                text = examples.text(example, field)
                if not isinstance(text, Unreadable):
                    yield index, text
        tell(what, indices[-1] + 1, total)


def _sentences(text: str) -> Iterator[str]:
    """Lines, cut between words where they are long."""
    for line in text.splitlines():
        line, start = line.strip(), 0
        while len(line) - start > LONGEST_SENTENCE:  # by places: cutting it anew is quadratic
            end = line.rfind(" ", start + 1, start + LONGEST_SENTENCE)
            end = end if end > 0 else start + LONGEST_SENTENCE
            if part := line[start:end].strip():
                yield part
            start = end
        if rest := line[start:].strip():
            yield rest


def _rank(place: str) -> int:
    return int.from_bytes(hashlib.blake2b(place.encode(), digest_size=8).digest(), "big")
