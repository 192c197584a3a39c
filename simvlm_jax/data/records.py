"""Records of prepared data: a tf.train.Example each, in ArrayRecord shards."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import tensorflow as tf
from array_record.python import array_record_module

from simvlm_jax.data.paths import shard_name

# One record per group: a group is read and decompressed whole, so larger ones make random
# access slow.
WRITER_OPTIONS = "group_size:1"


def encode_example(features: Mapping[str, int | float | str | bytes]) -> bytes:
    """Serializes one example.

    Args:
      features: name -> int (stored as int64), float (as float32), str (as UTF-8) or bytes.

    Returns:
      A tf.train.Example; equal features give equal bytes.
    """
    message = tf.train.Example()
    for name, value in features.items():
        if isinstance(value, int):
            message.features.feature[name].int64_list.value.append(value)
        elif isinstance(value, float):
            message.features.feature[name].float_list.value.append(value)
        else:
            content = value.encode() if isinstance(value, str) else value
            message.features.feature[name].bytes_list.value.append(content)
    return message.SerializeToString(deterministic=True)


def write_shards(folder: Path, split: str, records: Sequence[bytes], count: int) -> list[Path]:
    """Writes a split as ArrayRecord files; read one after the other they keep the order.

    Args:
      folder: where to write; it is made if missing.
      split: name of the split.
      records: serialized records.
      count: number of files; their lengths differ by one record at most.

    Returns:
      The files' paths in order.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / shard_name(split, index, count) for index in range(count)]
    for index, path in enumerate(paths):
        writer = array_record_module.ArrayRecordWriter(str(path), WRITER_OPTIONS)
        for record in records[index * len(records) // count : (index + 1) * len(records) // count]:
            writer.write(record)
        writer.close()
    return paths
