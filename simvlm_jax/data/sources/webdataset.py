"""WebDataset shards, as the `webdataset` library and img2dataset write them, read by index.

A sample is a run of tar members whose names are alike up to the first dot: `0001.jpg`, `0001.txt`,
`0001.json`. It is parsed in memory; nothing is ever extracted to a disk.
"""

import io
import json
import math
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, BinaryIO

import tensorflow as tf

from simvlm_jax.data.records import encode_example
from simvlm_jax.data.sources.base import Features, Unreadable
from simvlm_jax.data.sources.index import Entry
from simvlm_jax.data.sources.indexed import IndexedRecords
from simvlm_jax.data.sources.lines import LONGEST
from simvlm_jax.data.sources.patterns import Patterns, PatternSource
from simvlm_jax.data.sources.tar_samples import UNREADABLE, key_and_suffix, scan_samples
from simvlm_jax.errors import UserError

IMAGE, CAPTION = "image/encoded", "caption"
MOST_MEMBERS = 10_000  # of a sample, folders between its files included
IMAGE_SUFFIXES = ("jpg", "jpeg", "png", "webp", "gif", "bmp")
_STRING = tf.io.FixedLenFeature([], tf.string)


class _Fault(Exception):
    """A sample that cannot be used; its text is the cause."""


class WebDatasetRecords(IndexedRecords):
    """Random access over the samples of tar archives."""

    kind = "tar"

    def __init__(
        self,
        shards: Sequence[str],
        features: Features,
        image: Sequence[str] = IMAGE_SUFFIXES,
        text: str = "txt",
    ):
        """Opens the shards; `features` says which parts a sample must have."""
        self._features, self._image, self._text = dict(features), tuple(image), text
        super().__init__(shards)

    @staticmethod
    def scan(file: BinaryIO, shard: str) -> Iterator[Entry]:
        """Yields (offset, length, CRC-32C) of every sample."""
        return scan_samples(file, shard)

    def decode(self, data: bytes) -> bytes | Unreadable:
        """Makes an Example of a sample's members."""
        try:
            parts = {suffix: content for _, suffix, content in _members(data)}
            return encode_example(self._fields(parts))
        except _Fault as fault:
            return Unreadable(str(fault))

    def key(self, shard: int, position: int) -> str:
        """Returns the sample's key, the common part of its members' names; else its position."""
        (data,) = self.raw([(shard, position)])
        try:
            members = _members(b"" if isinstance(data, Unreadable) else data)
            name, _, _ = next(members)
        except (_Fault, StopIteration):
            return super().key(shard, position)
        return name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")

    def _fields(self, parts: Mapping[str, bytes]) -> dict[str, int | float | bytes]:
        fields: dict[str, int | float | bytes] = {}
        details = None
        for name, feature in self._features.items():
            if name == IMAGE:
                found = next((suffix for suffix in self._image if suffix in parts), None)
                if found is None:
                    raise _Fault("the sample has no image")
                fields[name] = parts[found]
            elif name == CAPTION:
                fields[name] = _caption(parts, self._text)
            else:
                details = _details(parts) if details is None else details
                fields[name] = _detail(details, name, feature.dtype)
        return fields


class WebDatasetSource(PatternSource):
    """A seqio source over tar shards of captioned images, read by index."""

    def __init__(
        self,
        name: str,
        splits: Mapping[str, Patterns],
        features: Features | None = None,
        image: Sequence[str] = IMAGE_SUFFIXES,
        text: str = "txt",
        json: Sequence[str] = (),
    ):
        """Describes the source.

        Example: `WebDatasetSource("laion", {"train": "laion/{00000..00999}.tar"})`.

        Args:
          name: what sentences call it.
          splits: of each split, its shards: a path, a glob, a range in braces, or a list of those;
            a relative path lies in the data folder.
          features: what a record gives, scalars by name: `image/encoded`, `caption` and the fields
            of `json` with their dtypes. By default all of them, as strings.
          image: suffixes of the image's member; where a sample has several, the first of these.
          text: suffix of the caption's member, UTF-8.
          json: names of fields of the .json member.

        Raises:
          UserError: a feature that no member gives, or that is no scalar.
        """
        if features is None:
            features = dict.fromkeys((IMAGE, CAPTION, *json), _STRING)
        for field, feature in features.items():
            if field not in (IMAGE, CAPTION, *json):
                raise UserError(
                    f"The samples of {name} have no field {field!r}; name it in `json`, or use "
                    f"{IMAGE!r} or {CAPTION!r}."
                )
            is_text = feature.dtype == tf.string
            is_one = isinstance(feature, tf.io.FixedLenFeature) and math.prod(feature.shape) == 1
            if not is_one or (field in (IMAGE, CAPTION) and not is_text):
                raise UserError(
                    f"The field {field!r} of {name} must be a scalar; the image and the caption "
                    "are strings."
                )
        super().__init__(name, splits, features)
        self._image, self._text = tuple(image), text

    def open(self, shards: Sequence[str]) -> WebDatasetRecords:
        """Opens shards for reading by index."""
        return WebDatasetRecords(shards, self._features, self._image, self._text)


def _members(data: bytes) -> Iterator[tuple[str, str, bytes]]:
    """Yields (key, suffix, content) of a sample's members.

    Raises:
      _Fault: a member that is no plain file of a sample.
    """
    seen = set()
    for member in _headers(data):
        named = key_and_suffix(member)
        if named is None:
            continue
        if member.name.startswith("/") or ".." in member.name.split("/"):
            raise _Fault("a member's name leaves the archive")
        if member.issym() or member.islnk():
            raise _Fault("a member is a link")
        end = member.offset_data + member.size
        # A sparse member would claim any number of bytes that are not there.
        if not member.isreg() or member.issparse() or end > len(data):
            raise _Fault("a member is no plain file")
        if named[1] in seen:
            raise _Fault("a member comes twice")
        seen.add(named[1])
        yield *named, data[member.offset_data : end]


def _headers(data: bytes) -> Iterator[tarfile.TarInfo]:
    try:
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as archive:
            for number, member in enumerate(archive):
                if number == MOST_MEMBERS:  # the library keeps each of them
                    raise _Fault(f"the sample has more than {MOST_MEMBERS} members")
                yield member
    except UNREADABLE:
        raise _Fault("the sample is no readable archive") from None


def _caption(parts: Mapping[str, bytes], suffix: str) -> bytes:
    if suffix not in parts:
        raise _Fault("the sample has no text")
    try:
        parts[suffix].decode("utf-8")
    except UnicodeDecodeError:
        raise _Fault("the caption is not UTF-8") from None
    return parts[suffix]


def _details(parts: Mapping[str, bytes]) -> Mapping[str, Any]:
    if "json" not in parts:
        raise _Fault("the sample has no .json")
    if len(parts["json"]) > LONGEST:
        raise _Fault(f"the .json is longer than {LONGEST >> 20} MiB")
    try:
        details = json.loads(parts["json"])
    except (ValueError, RecursionError):  # text of another encoding is a ValueError too
        raise _Fault("the .json cannot be read") from None
    if not isinstance(details, dict):
        raise _Fault("the .json is no object")
    return details


def _detail(details: Mapping[str, Any], name: str, dtype: tf.DType) -> int | float | bytes:
    value = details.get(name)
    if value is None:
        raise _Fault(f"the .json has no field {name!r}")
    if dtype == tf.string and isinstance(value, str):
        return value.encode("utf-8", "replace")  # JSON can write halves of characters
    whole = isinstance(value, int) and not isinstance(value, bool)
    if dtype.is_integer and whole and -(1 << 63) <= value < 1 << 63:
        return value
    if dtype.is_floating and (whole or isinstance(value, float)) and abs(value) < 1 << 127:
        return float(value)  # neither NaN nor what would become infinite
    raise _Fault(f"the field {name!r} of the .json has another type")
