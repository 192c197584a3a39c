"""A folder of images with captions beside them, as image collections are commonly kept."""

import os
from collections.abc import Mapping, Sequence

import tensorflow as tf

from simvlm_jax.data.sources.base import Features, Records, Unreadable, attempt
from simvlm_jax.data.sources.csv_rows import Table
from simvlm_jax.data.sources.encoding import IMAGE, check_features, encode
from simvlm_jax.data.sources.json_lines import JSONLines
from simvlm_jax.data.sources.lines import BOM, LONGEST, decode
from simvlm_jax.data.sources.named_files import Folder, open_folder
from simvlm_jax.data.sources.patterns import Patterns, PatternSource
from simvlm_jax.data.sources.shards import Shard, open_shards
from simvlm_jax.errors import UserError

CAPTION = "caption"
SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".webp")
METADATA = {"metadata.jsonl": JSONLines, "metadata.csv": Table}
_STRING = tf.io.FixedLenFeature([], tf.string)


class FolderSource(PatternSource):
    """Images with their captions: `image/encoded` and `caption`.

    A folder with a `metadata.jsonl` or `metadata.csv` (as Hugging Face's imagefolder has them) has
    what these say: `file_name`, `text` and whatever else. Else every image below the folder,
    sorted by path, has its caption in a file of its name that ends with `.txt`. A folder may lie in
    a bucket; it is listed once, at its opening.
    """

    folders = True

    def __init__(
        self,
        name: str,
        splits: Mapping[str, Patterns],
        features: Features | None = None,
        fields: Mapping[str, str] | None = None,
    ):
        """Describes the source.

        Args:
          name: what sentences call it.
          splits: of each split, its folders as `find_shards` takes them.
          features: of the records; by default the image and the caption.
          fields: feature name -> name in the metadata, by default `text` for the caption and
            equal ones for others.

        Raises:
          UserError: a feature that a row cannot give.
        """
        features = features or {IMAGE: _STRING, CAPTION: _STRING}
        super().__init__(name, splits, features)
        check_features(name, features)
        self._fields = {key: key for key in features} | {CAPTION: "text"} | dict(fields or {})
        self._fields |= {IMAGE: "file_name"}

    def open(self, shards: Sequence[str]) -> Records:
        """Lists folders, or reads their metadata, for reading by index."""
        return open_shards(self._open, shards)

    def _open(self, path: str) -> Shard:
        folder = open_folder(path)
        for name, opener in METADATA.items():
            if folder.has(name):
                return opener(os.path.join(path, name), self._features, self._fields, path)
        return CaptionedImages(path, folder, self._features)


class CaptionedImages(Shard):
    """One folder of images and text files."""

    def __init__(self, path: str, folder: Folder, features: Features):
        """Lists the images.

        Args:
          path: of the folder.
          folder: the same, opened.
          features: of the records: the image, the caption or both.

        Raises:
          UserError: the folder has no captioned image, or other features are wanted.
        """
        self.name, self._folder, self._features = path, folder, features
        self._labels = {key: f"the {key}" for key in features}
        others = sorted(set(features) - {IMAGE, CAPTION})
        if others:
            raise UserError(f"{path} has no {' nor '.join(METADATA)} that could hold {others}.")
        # macOS leaves ._dog.jpg beside dog.jpg.
        files = [name for name in folder.names() if not os.path.basename(name).startswith(".")]
        self._images = [name for name in files if name.lower().endswith(SUFFIXES)]
        if not {_caption(name) for name in self._images} & set(files):
            raise UserError(
                f"{path} has {len(self._images)} images ({', '.join(SUFFIXES)}) and no caption for "
                "any of them; put the caption of dog.jpg into dog.txt beside it, or write a "
                "metadata.jsonl with file_name and text."
            )

    def __len__(self) -> int:
        """Returns the number of images."""
        return len(self._images)

    def key(self, position: int) -> str:
        """Returns an image's path from the folder on."""
        return self._images[position]

    def read(self, positions: Sequence[int]) -> list[bytes | Unreadable]:
        """Reads images and their captions, all at once."""
        names = [self._images[position] for position in positions]
        values: dict[str, list[bytes | Unreadable]] = {}
        if IMAGE in self._features:
            values[IMAGE] = self._folder.read(names)
        if CAPTION in self._features:
            captions = [_caption(name) for name in names]
            values[CAPTION] = self._folder.read(captions, "caption", LONGEST)
        rows = [{key: values[key][slot] for key in values} for slot in range(len(names))]
        return [attempt(self._record, row) for row in rows]

    def _record(self, row: Mapping[str, bytes | Unreadable]) -> bytes | Unreadable:
        for value in row.values():
            if isinstance(value, Unreadable):
                return value
        values: dict[str, object] = dict(row)
        if CAPTION in row:
            values[CAPTION] = decode(row[CAPTION].removeprefix(BOM), "caption").strip()
        return encode(values, self._features, self._labels)


def _caption(image: str) -> str:
    return os.path.splitext(image)[0] + ".txt"
