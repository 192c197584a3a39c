"""Small inputs for tests of what prepares people's own data."""

import io
import struct
import zlib

import numpy as np
import tensorflow as tf
from PIL import Image

from simvlm_jax.data.records import write_shards


def image(number, size=(12, 10), kind="PNG"):
    pixels = np.random.default_rng(number).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, kind)
    return content.getvalue()


def bomb(width=100_000, height=100_000):
    """A PNG of a few bytes whose header promises ten billion pixels."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(b"\0")), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(content))
        + kind
        + content
        + struct.pack(">I", zlib.crc32(kind + content))
        for kind, content in chunks
    )


def example(**fields):
    """A serialized tf.train.Example; `image` is short for `image/encoded`."""
    message = tf.train.Example()
    for name, value in fields.items():
        feature = message.features.feature["image/encoded" if name == "image" else name]
        for item in value if isinstance(value, list) else [value]:
            if isinstance(item, int):
                feature.int64_list.value.append(item)
            elif isinstance(item, float):
                feature.float_list.value.append(item)
            else:
                feature.bytes_list.value.append(item.encode() if isinstance(item, str) else item)
    return message.SerializeToString()


def pair(number, **fields):
    return example(**{"image": image(number), "caption": f"picture {number}", **fields})


def write(folder, records, shards=2):
    """Writes an input and returns its path."""
    write_shards(folder, "part", list(records), shards)
    return str(folder)


def silent(what, done, total, before=0):
    """Takes a progress report and keeps it to itself."""
