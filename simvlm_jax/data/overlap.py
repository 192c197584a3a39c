"""What stands both in training and in evaluation: images by their bytes or their look, and texts.

Memory holds digests of the evaluation's images and texts, and nothing of the training's, which may
be of any size.
"""

import dataclasses
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from simvlm_jax.data.features import IMAGES
from simvlm_jax.data.pillow_images import load_image
from simvlm_jax.data.plain import get_task
from simvlm_jax.data.python_calls import numpy_function
from simvlm_jax.data.sources import Records, RecordSource, Unreadable
from simvlm_jax.errors import UserError

KINDS = ("images", "looks", "texts")
READ_AT_ONCE = 64
DIGEST_BYTES = 12  # of a hundred million, two agree by chance once in ten trillion times
LOOK = (8, 9)  # pixels: 64 comparisons of neighbours
BRIGHTER = 12  # of 765: less is the noise of JPEG on a plain ground
FLAT = (0, (1 << 64) - 1)  # looks of images without anything on them
OWN_IDS = ("identifier", "index")
Digest = tuple[str, bytes]  # kind, and what is compared


@dataclasses.dataclass(frozen=True)
class Split:
    """A task's split, written TASK:SPLIT."""

    task: str
    split: str

    @classmethod
    def parse(cls, text: str, default: str | None = None) -> "Split":
        """Reads TASK:SPLIT, or TASK where there is a default.

        Raises:
          UserError: there is no such task or split.
        """
        name, mark, split = text.partition(":")
        source = get_task(name).source
        split = split if mark else default or ""
        if split not in source.splits:
            raise UserError(
                f"{text!r} is not TASK:SPLIT with a split of the task {name!r}: it has "
                f"{', '.join(source.splits)}."
            )
        if not isinstance(source, RecordSource):
            raise UserError(f"The records of the task {name!r} cannot be read by index.")
        return cls(name, split)

    def __str__(self) -> str:
        """As it is written."""
        return f"{self.task}:{self.split}"


@dataclasses.dataclass
class Overlap:
    """What a split of evaluation and one of training share.

    Attributes:
      evaluation: the split that is evaluated.
      training: the split that is trained on.
      examples: of the evaluation, in all.
      counts: by kind, how many of the evaluation's examples have something that training has.
      pairs: by kind, the first ones: (name of the evaluation's example, of the training's).
    """

    evaluation: Split
    training: Split
    examples: int
    counts: dict[str, int]
    pairs: dict[str, list[tuple[str, str]]]


def find_overlaps(
    training: Sequence[Split],
    evaluation: Sequence[Split],
    looks: bool = False,
    shown: int = 3,
    report: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> list[Overlap]:
    """Compares splits.

    Args:
      training: what is trained on.
      evaluation: what is evaluated.
      looks: compare images by their look too, which finds other files of the same picture (and
        pictures that resemble one another); each image is decoded for it.
      shown: pairs of examples to name of each kind.
      report: called with what is read, how many examples are done, and how many there are.

    Returns:
      One overlap for each pair of splits, of which a kind that nothing has stands with 0.
    """
    known: list[tuple[Split, int, dict[Digest, list[int]], dict[int, str]]] = []
    for split in evaluation:
        places: dict[Digest, list[int]] = {}
        names: dict[int, str] = {}
        for place, (name, digests) in enumerate(_examples(split, looks, report)):
            names[place] = name
            for digest in digests:
                places.setdefault(digest, []).append(place)
        known.append((split, len(names), places, names))
    found = []
    for train in training:
        hits = [{kind: {} for kind in KINDS} for _ in known]
        for name, digests in _examples(train, looks, report):
            for (_, _, places, _), hit in zip(known, hits, strict=True):
                for digest in digests:
                    for place in places.get(digest, ()):
                        hit[digest[0]].setdefault(place, name)
        for (split, count, _, names), hit in zip(known, hits, strict=True):
            found.append(
                Overlap(
                    split,
                    train,
                    count,
                    {kind: len(hit[kind]) for kind in KINDS},
                    {
                        kind: [(names[p], hit[kind][p]) for p in sorted(hit[kind])[:shown]]
                        for kind in KINDS
                    },
                )
            )
    return found


def describe(overlaps: Sequence[Overlap]) -> str:
    """Writes overlaps for a person, those that share nothing in one line each."""
    lines = []
    for overlap in overlaps:
        head = f"{overlap.evaluation} beside {overlap.training}"
        if not any(overlap.counts.values()):
            lines.append(f"{head}: nothing of its {overlap.examples} examples stands in both.")
            continue
        lines.append(f"{head}:")
        for kind, count in overlap.counts.items():
            if count:
                share = 100 * count / overlap.examples
                lines.append(
                    f"  {kind}: {count} of {overlap.examples} examples ({share:.1f} %) have one "
                    "that training has, such as"
                )
                lines += [f"    {one} and {other}" for one, other in overlap.pairs[kind]]
    return "\n".join(lines)


def look_of(content: bytes) -> int | None:
    """Returns 64 bits that say where an image gets brighter from left to right.

    Returns:
      The bits; None for what cannot be decoded or has nothing on it.
    """
    try:
        grey = load_image(content, LOOK).astype(np.int32).sum(axis=-1)
    except UserError:
        return None
    bits = (grey[:, 1:] > grey[:, :-1] + BRIGHTER).ravel()
    look = int.from_bytes(np.packbits(bits).tobytes(), "big")
    return None if look in FLAT else look


def _examples(
    split: Split, looks: bool, report: Callable[[str, int, int], None]
) -> Iterator[tuple[str, set[Digest]]]:
    """Each example's name and digests; one that cannot be read has none."""
    records = get_task(split.task).source.in_order(split.split)
    for number, example in enumerate(_processed(split, records), 1):
        yield _name(example), set(_digests(example, looks))
        report(str(split), number, len(records))


def _processed(split: Split, records: Records) -> Iterator[dict[str, Any]]:
    task = get_task(split.task)
    empty = task.source.placeholder()

    def read(indices: np.ndarray) -> np.ndarray:
        found = records.read(indices)
        return np.array([empty if isinstance(r, Unreadable) else r for r in found], object)

    def take(indices: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return tf.ensure_shape(numpy_function(read, [indices], tf.string), [None]), indices

    dataset = tf.data.Dataset.range(len(records)).batch(READ_AT_ONCE).map(take).unbatch()
    dataset = task.preprocess_precache(dataset.map(task.source.parse))
    dataset = task.preprocess_postcache(dataset, None)
    kept = [name for name, spec in dataset.element_spec.items() if _is_compared(name, spec)]
    yield from dataset.map(lambda e: {name: e[name] for name in kept}).as_numpy_iterator()


def _is_compared(name: str, spec: tf.TensorSpec) -> bool:
    return name in IMAGES or name == "references" or (spec.shape.rank == 0)


def _digests(example: Mapping[str, Any], looks: bool) -> Iterator[Digest]:
    for content in (example[name][0] for name in IMAGES if name in example):
        if content:
            yield "images", _digest(content)
            if looks and (look := look_of(content)) is not None:
                yield "looks", look.to_bytes(8, "big")
    before = example.get("inputs_pretokenized", b"")
    for after in (example.get("targets_pretokenized", b""), *example.get("references", ())):
        text = b" ".join((before + b" " + after).decode(errors="replace").lower().encode().split())
        if text:
            yield "texts", _digest(text)


def _digest(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=DIGEST_BYTES).digest()


def _name(example: Mapping[str, Any]) -> str:
    own = [n for n in example if n.endswith("_id") or n in OWN_IDS]
    values = {n: example[n] for n in ["id", *sorted(own)]}
    shown = (v.decode(errors="replace") if isinstance(v, bytes) else v for v in values.values())
    return ", ".join(f"{name} {value}" for name, value in zip(values, shown, strict=True))
