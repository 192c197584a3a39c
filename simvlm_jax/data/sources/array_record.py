"""ArrayRecord shards, the format that `simvlm prepare` writes; local files only.

From a bucket, mount it (as gcsfuse does) or prepare TFRecord shards: the library opens files by
name.
"""

from collections.abc import Sequence

from array_record.python import array_record_module

from simvlm_jax.data.paths import data_dir, shard_paths
from simvlm_jax.data.sources.base import Features, Records, RecordSource, Unreadable
from simvlm_jax.data.sources.files import is_local
from simvlm_jax.errors import UserError

# Read-ahead helps only sequential reading of large groups; our files have one record per group.
READER_OPTIONS = "readahead_buffer_size:0,max_parallelism:0"


class ArrayRecords(Records):
    """Random access over ArrayRecord files, one seek per record."""

    def __init__(self, paths: Sequence[str]):
        """Opens every shard once to learn its length.

        Args:
          paths: shards in their order.

        Raises:
          UserError: a file is missing or is not an ArrayRecord file.
        """
        self._readers = [_open(str(path)) for path in paths]
        super().__init__(paths, [reader.num_records() for reader in self._readers])

    def read_shard(self, shard: int, positions: Sequence[int]) -> list[bytes | Unreadable]:
        """Reads records of one shard; where one is damaged, the others one by one."""
        reader = self._readers[shard]
        try:
            return list(reader.read(list(positions)))
        except RuntimeError:
            if len(positions) > 1:
                return [self.read_shard(shard, [position])[0] for position in positions]
            return [Unreadable("the bytes of the record are damaged")]


def _open(path: str) -> array_record_module.ArrayRecordReader:
    if not is_local(path):
        raise UserError(
            f"{path} cannot be read by index, as ArrayRecord files are opened by name on this "
            "machine; mount the bucket, copy the file, or write TFRecord shards."
        )
    reader = array_record_module.ArrayRecordReader(path, READER_OPTIONS)
    if not reader.ok():  # the library itself stays silent and reports no records
        raise UserError(f"{path} is not a readable ArrayRecord file; prepare the data again.")
    return reader


class ArrayRecordSource(RecordSource):
    """Records in `<data_dir>/<folder>/<split>-*.array_record`."""

    def __init__(self, folder: str, splits: Sequence[str], features: Features):
        """Describes the source.

        Args:
          folder: folder relative to the data folder (an absolute path is taken as it is).
          splits: names of the splits that the folder holds.
          features: what to parse from each record.
        """
        super().__init__(folder, splits, features)

    def shards(self, split: str) -> list[str]:
        """Returns the paths of a split's files, in order."""
        return [str(path) for path in shard_paths(data_dir() / self._name, split)]

    def open(self, shards: Sequence[str]) -> ArrayRecords:
        """Opens shards for reading by index."""
        return ArrayRecords(shards)
