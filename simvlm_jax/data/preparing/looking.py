"""What is in some records, without preparing anything: the first ones, and a sample of all."""

import io
from collections import Counter
from collections.abc import Iterator

import numpy as np
import tensorflow as tf
from PIL import Image

from simvlm_jax.data.preparing import examples
from simvlm_jax.data.preparing.examining import Pair, Refused, or_refuse
from simvlm_jax.data.preparing.inputs import CAPTION, TEXT, spread
from simvlm_jax.data.preparing.report import shortened
from simvlm_jax.data.preparing.work import Report
from simvlm_jax.data.sources import Records, Unreadable

PERCENTILES = (0, 5, 50, 95, 100)


def describe(
    records: Records, image_name: str, text_name: str, first: int, sample: int, tell: Report
) -> str:
    """Describes records.

    Args:
      records: what to look at.
      image_name: field of the image; records without it are texts.
      text_name: field of the caption or the text; "" for "caption" or "text".
      first: how many records from the start to show field by field.
      sample: how many records, spread evenly over all, to gather statistics of.
      tell: told the progress.

    Returns:
      Lines of text.
    """
    lines = [f"{len(records)} records in {len(records.shards)} files"]
    for index in range(min(first, len(records))):
        lines += _record(records, index)
    if len(records):
        lines += _statistics(records, (image_name, text_name), sample, tell)
    return "\n".join(lines)


def _record(records: Records, index: int) -> list[str]:
    shard, key = records.name(index)
    lines = [f"record {index}: {shortened(key)} of {shard}"]
    example = examples.parse(records.read([index])[0])
    if isinstance(example, Unreadable):
        return [*lines, f"  unreadable: {example.cause}"]
    return lines + [f"  {name:<24}{_field(example, name)}" for name in examples.names(example)]


def _field(example: tf.train.Example, name: str) -> str:
    kind, content = examples.values(example, name)
    if kind != "bytes" or len(content) != 1:
        shown = ", ".join(str(value)[:40] for value in content[:8])
        return f"{kind} [{len(content)}]  {shown}"
    (value,) = content
    size = f"{len(value)} bytes"
    if image := _image(value):
        return f"{size}  {image}"
    return f"{size}  {shortened(value)!r}"


def _image(content: bytes) -> str:
    try:
        with Image.open(io.BytesIO(content)) as opened:  # the header alone
            return f"{opened.format} {opened.width} x {opened.height} {opened.mode}"
    except Exception:  # it is no image, and damaged ones raise nearly anything
        return ""


def _statistics(records: Records, fields: tuple[str, str], sample: int, tell: Report) -> list[str]:
    indices = spread(len(records), sample)
    causes: Counter[str] = Counter()
    formats: Counter[str] = Counter()
    numbers: dict[str, list[int]] = {}
    for done, example in enumerate(_parsed(records, indices), 1):
        if isinstance(example, Unreadable):
            causes[example.cause] += 1
        else:
            _measure(example, fields, numbers, formats, causes)
        tell("sampling", done, len(indices))
    usable = len(indices) - causes.total()
    lines = [f"sample of {len(indices)} records, {usable} of them usable:"]
    lines += [
        f"  {100 * count / len(indices):6.2f} %  {cause}" for cause, count in causes.most_common()
    ]
    for name, values in numbers.items():
        found = np.percentile(values, PERCENTILES, method="nearest")
        spans = "  ".join(f"{p} %: {int(v)}" for p, v in zip(PERCENTILES, found, strict=True))
        lines.append(f"  {name:<24}{spans}")
    if formats:
        told = ", ".join(f"{name} {count}" for name, count in formats.most_common())
        lines.append(f"  {'formats':<24}{told}")
    return lines


def _parsed(records: Records, indices: np.ndarray) -> Iterator[tf.train.Example | Unreadable]:
    for index in indices:
        yield examples.parse(records.read([int(index)])[0])


def _measure(
    example: tf.train.Example,
    fields: tuple[str, str],
    numbers: dict[str, list[int]],
    formats: Counter,
    causes: Counter,
) -> None:
    def note(name: str, value: int) -> None:
        numbers.setdefault(name, []).append(value)

    names = examples.names(example)
    image, text = fields
    text = text or next((name for name in (CAPTION, TEXT) if name in names), CAPTION)
    try:
        if image not in names:  # a document, or a task with texts alone
            note(f"{text}, characters", len(or_refuse(examples.text(example, text))))
            return
        pair = Pair(example, image, text)
    except Refused as refused:
        causes[str(refused)] += 1
        return
    note(f"{text}, characters", len(pair.caption))
    note("image, bytes", len(pair.image))
    note("image, width", pair.size[0])
    note("image, height", pair.size[1])
    formats[pair.format] += 1
