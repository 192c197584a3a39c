"""Parquet files with image bytes, as Hugging Face's data sets have them, and with text.

A record can only be read with its whole row group, so groups must be small: of a batch of a global
shuffle, every record is in another one.
"""

import bisect
import contextlib
import io
import itertools
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, BinaryIO

import tensorflow as tf

from simvlm_jax.data.sources.base import BadRecord, Features, Records, Unreadable, attempt
from simvlm_jax.data.sources.encoding import check_features, encode
from simvlm_jax.data.sources.files import REMOTE_BUFFER, RemoteFile
from simvlm_jax.data.sources.patterns import Patterns, PatternSource
from simvlm_jax.data.sources.recent import Recent
from simvlm_jax.data.sources.shards import FileShard, open_shards
from simvlm_jax.errors import UserError

if TYPE_CHECKING:
    import pyarrow

LARGEST_GROUP = 64 << 20  # bytes of the columns that are read
LARGEST_UNPACKED = 256 << 20  # a dictionary page can unpack to far more than its group has
KEPT = 512 << 20
MOST_ROWS = 4096  # of a batch
MERGED = 1024  # batches
READ_BUFFER = 1 << 20  # else a column of a whole row group is read at once
DAMAGED = "the bytes of the row group are damaged"
BYTES = "bytes"  # the part of Hugging Face's images that holds the content; the other is `path`


class ParquetSource(PatternSource):
    """Records in the rows of Parquet files."""

    def __init__(
        self,
        name: str,
        splits: Mapping[str, Patterns],
        features: Features,
        columns: Mapping[str, str] | None = None,
    ):
        """Describes the source.

        Args:
          name: what sentences call it.
          splits: of each split, its files as `find_shards` takes them.
          features: of the records.
          columns: feature name -> column; by default they are equal. A column holds text, bytes,
            integers, floats, lists of these, or structs with a field `bytes`.

        Raises:
          UserError: a feature that a row cannot give.
        """
        super().__init__(name, splits, features)
        check_features(name, features)
        self._columns = {key: key for key in features} | dict(columns or {})

    def open(self, shards: Sequence[str]) -> Records:
        """Opens files for reading by index; reads their footers only.

        Raises:
          UserError: a file is damaged, its schema is another, or its row groups are too large.
        """
        groups = Recent(KEPT)

        def open_one(path: str) -> ParquetFile:
            opened = ParquetFile(path, self._features, self._columns, groups)
            opened.check_groups()
            return opened

        return open_shards(open_one, shards)

    def rows(self, shard: str) -> Iterator[bytes | Unreadable]:
        """Reads a file from its first row to its last, whatever its row groups: to prepare it.

        Args:
          shard: the path.

        Yields:
          A record for each row that the footer counts, or why there is none.

        Raises:
          UserError: the file is damaged, or its schema is another.
        """
        return ParquetFile(shard, self._features, self._columns, Recent(0)).rows()


class ParquetFile(FileShard):
    """One Parquet file."""

    def __init__(self, path: str, features: Features, columns: Mapping[str, str], groups: Recent):
        """Reads the footer.

        Args:
          path: the file.
          features: of the records.
          columns: feature name -> column.
          groups: where row groups that were read are kept for a while.

        Raises:
          UserError: it cannot be read, or its schema is another.
        """
        super().__init__(path)
        self._features, self._groups = features, groups
        self._columns = {key: columns[key] for key in features}
        self._labels = {key: f"the column {column}" for key, column in self._columns.items()}
        with self.opening() as file, _naming(path):
            opened = _open(file)
            self._footer, schema = opened.metadata, opened.schema_arrow
            row_groups = [self._footer.row_group(i) for i in range(self._footer.num_row_groups)]
            leaves = {_leaf(path, schema, self._columns[key], features[key]) for key in features}
            self._leaves = sorted(leaves)
            _check_columns(self.file.size, self._footer, self._leaves)
            names = [
                f"{column.path}."
                for column in map(opened.schema.column, range(len(opened.schema.names)))
            ]
            wanted = tuple(f"{leaf}." for leaf in leaves)
            columns = [index for index, name in enumerate(names) if name.startswith(wanted)]
            self._sizes = [_size(group, columns) for group in row_groups]
        self._ends = list(itertools.accumulate(group.num_rows for group in row_groups))

    def __len__(self) -> int:
        """Returns the number of rows."""
        return self._ends[-1] if self._ends else 0

    def check_groups(self) -> None:
        """Refuses row groups that are too large to be read for a single row.

        Raises:
          UserError: there is one.
        """
        largest = max(self._sizes, default=0)
        if largest > LARGEST_GROUP:
            raise UserError(
                f"{self.name} has a row group of {largest >> 20} MiB, and more than "
                f"{LARGEST_GROUP >> 20} are too many to read for every row; run `simvlm prepare` "
                "to write shards that can be read by index."
            )

    def read(self, positions: Sequence[int]) -> list[bytes | Unreadable]:
        """Reads rows, each row group once."""
        order = sorted(range(len(positions)), key=positions.__getitem__)
        records = super().read([positions[slot] for slot in order])
        found = dict(zip(order, records, strict=True))
        return [found[slot] for slot in range(len(positions))]

    def record(self, file: BinaryIO, position: int) -> bytes:
        """Reads a row."""
        group = bisect.bisect_right(self._ends, position)
        table = self._groups.get((self.name, group), lambda: self._load(file, group))
        return self._encode(table, position - (self._ends[group - 1] if group else 0))

    def rows(self) -> Iterator[bytes | Unreadable]:
        """Reads all rows in order, a page of each column in memory."""
        for group, end in enumerate(self._ends):
            left = end - (self._ends[group - 1] if group else 0)
            try:
                with self.file.open() as file:
                    for batch in self._batches(file, group):
                        left -= batch.num_rows
                        for row in range(batch.num_rows):
                            yield attempt(self._encode, batch, row)
                cause = DAMAGED
            except BadRecord as bad:
                cause = str(bad)
            yield from itertools.repeat(Unreadable(cause), left)

    def _load(self, file: BinaryIO, group: int) -> tuple["pyarrow.Table", int]:
        import pyarrow

        pieces, small, size, count = [], [], 0, 0
        for batch in self._batches(file, group):
            small.append(batch)
            size, count = size + batch.nbytes, count + batch.num_rows
            if size > LARGEST_UNPACKED:
                raise BadRecord(f"the row group unpacks to more than {LARGEST_UNPACKED >> 20} MiB")
            if len(small) == MERGED:  # or the batches would be larger than what is in them
                pieces += pyarrow.Table.from_batches(small).combine_chunks().to_batches()
                small = []
        if count != self._ends[group] - (self._ends[group - 1] if group else 0):
            raise BadRecord(DAMAGED)
        return pyarrow.Table.from_batches([*pieces, *small]), size

    def _batches(self, file: BinaryIO, group: int) -> Iterator["pyarrow.RecordBatch"]:
        # So few that they fit even if each is the whole of a dictionary page.
        rows = max(1, min(MOST_ROWS, LARGEST_UNPACKED // 2 // max(1, self._sizes[group])))
        try:
            yield from _open(file, self._footer).iter_batches(
                rows, row_groups=[group], columns=self._leaves, use_threads=False
            )
        except BadRecord:
            raise
        except _errors():
            raise BadRecord(DAMAGED) from None

    def _encode(self, table: "pyarrow.Table | pyarrow.RecordBatch", row: int) -> bytes:
        values = {}
        for key, column in self._columns.items():
            try:
                value = table.column(column)[row].as_py()
            except UnicodeDecodeError:
                raise BadRecord(f"{self._labels[key]} is not UTF-8") from None
            values[key] = value[BYTES] if isinstance(value, dict) else value
        return encode(values, self._features, self._labels)


def _open(file: BinaryIO, footer: "pyarrow.parquet.FileMetaData | None" = None):
    try:
        from pyarrow import parquet
    except ImportError:
        raise UserError("To read Parquet files, run `pip install pyarrow`.") from None
    buffer = REMOTE_BUFFER if isinstance(file, RemoteFile) else READ_BUFFER
    return parquet.ParquetFile(
        file, metadata=footer, buffer_size=buffer, page_checksum_verification=True
    )


def _errors() -> tuple[type[Exception], ...]:
    import pyarrow

    return pyarrow.lib.ArrowException, OSError, ValueError  # ValueError: names that are not UTF-8


@contextlib.contextmanager
def _naming(path: str) -> Iterator[None]:
    """Turns what the library says of a footer into a sentence."""
    try:
        yield
    except BadRecord:
        raise
    except _errors() as error:
        cause = str(error).partition("\n")[0]
        raise UserError(
            f"{path} is not a readable Parquet file ({cause}); fetch it again."
        ) from None


class _Sealed(io.RawIOBase):
    """A file of which only the footer is known: it says when anything else is asked for."""

    class Asked(OSError):
        """Its content was asked for."""

    def __init__(self, size: int):
        self._size, self._place = size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._place

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._place = offset + (self._size if whence == os.SEEK_END else 0)
        return self._place

    def read(self, size: int = -1) -> bytes:
        raise self.Asked


def _check_columns(size: int, footer: "pyarrow.parquet.FileMetaData", leaves: list[str]) -> None:
    """Lets the library look at the columns of a footer where it can refuse them.

    Asked for a column's numbers, it ends the process where these contradict one another; a reader
    looks at the same and raises, before it asks for the first page.

    Raises:
      ArrowException, OSError or ValueError: a column that cannot be.
    """
    opened = _open(_Sealed(size), footer)
    for group in range(footer.num_row_groups):
        try:
            next(
                opened.iter_batches(1, row_groups=[group], columns=leaves, use_threads=False), None
            )
        except _Sealed.Asked:
            continue


def _size(group: "pyarrow.parquet.RowGroupMetaData", columns: Sequence[int]) -> int:
    """Returns the bytes of some columns; values of runs count, of which a few bytes make many.

    Raises:
      ValueError: there are more rows than values, which cannot be.
    """
    if max(columns, default=0) >= group.num_columns:
        raise ValueError("a row group lacks a column")
    parts = [group.column(index) for index in columns]
    # A row has a value in each column, be it a null or an empty list.
    if not 0 <= group.num_rows <= min((part.num_values for part in parts), default=-1):
        raise ValueError("a row group has more rows than values")
    return sum(max(part.total_uncompressed_size, 8 * part.num_values) for part in parts)


def _leaf(path: str, schema: "pyarrow.Schema", column: str, feature: tf.io.FixedLenFeature) -> str:
    """Returns what is to be read of a column, once its type is known to fit.

    Raises:
      UserError: there is no such column, or it is of another type.
    """
    import pyarrow

    if schema.names.count(column) != 1:
        raise UserError(
            f"{path} has {schema.names.count(column) or 'no'} columns named {column!r}; it has "
            f"{schema.names}."
        )
    found = kind = schema.field(column).type
    leaf, types = column, pyarrow.types
    if types.is_struct(kind) and kind.get_field_index(BYTES) >= 0:
        leaf, kind = f"{column}.{BYTES}", kind.field(BYTES).type
    many = types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind)
    kind = kind.value_type if many or types.is_dictionary(kind) else kind
    wanted, fits = {
        tf.string: ("text, bytes or a struct with bytes", _is_text(kind)),
        tf.int64: ("integers", types.is_integer(kind)),
        tf.float32: ("numbers", types.is_floating(kind) or types.is_integer(kind)),
    }[feature.dtype]
    count = math.prod(feature.shape)  # where any number will do, a single value will too
    if not fits or (count != 1 and not many):
        wanted = f"lists of {count} {wanted}" if count != 1 else wanted
        raise UserError(f"The column {column!r} of {path} is {found} and should be {wanted}.")
    return leaf


def _is_text(kind: "pyarrow.DataType") -> bool:
    from pyarrow import types

    tests = ("string", "large_string", "string_view", "binary", "large_binary", "binary_view",
             "fixed_size_binary")  # fmt: skip
    return any(getattr(types, f"is_{test}")(kind) for test in tests)
