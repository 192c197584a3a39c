"""A folder of images with captions beside them, as image collections are commonly kept."""

import os
from collections.abc import Mapping, Sequence

import tensorflow as tf

from simvlm_jax.data.paths import data_dir
from simvlm_jax.data.sources.base import Features, Records, RecordSource, Unreadable
from simvlm_jax.data.sources.csv_rows import Table
from simvlm_jax.data.sources.encoding import IMAGE, check_features, encode
from simvlm_jax.data.sources.json_lines import JSONLines
from simvlm_jax.data.sources.lines import BOM, LONGEST, decode
from simvlm_jax.data.sources.local import Folder, Shard, ShardRecords, attempt
from simvlm_jax.errors import UserError

CAPTION = "caption"
SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".webp")
METADATA = {"metadata.jsonl": JSONLines, "metadata.csv": Table}
_STRING = tf.io.FixedLenFeature([], tf.string)


class FolderSource(RecordSource):
    """Images with their captions: `image/encoded` and `caption`.

    A folder with a `metadata.jsonl` or `metadata.csv` (as Hugging Face's imagefolder has them) has
    what these say: `file_name`, `text` and whatever else. Else every image below the folder,
    sorted by path, has its caption in a file of its name that ends with `.txt`.
    """

    def __init__(
        self,
        name: str,
        splits: Mapping[str, str | Sequence[str]],
        features: Features | None = None,
        fields: Mapping[str, str] | None = None,
    ):
        """Describes the source.

        Args:
          name: what sentences call it.
          splits: each split's folder, or several, relative to the data folder.
          features: of the records; by default the image and the caption.
          fields: feature name -> name in the metadata, by default `text` for the caption and
            equal ones for others.

        Raises:
          UserError: a feature that a row cannot give.
        """
        features = features or {IMAGE: _STRING, CAPTION: _STRING}
        super().__init__(name, list(splits), features)
        check_features(name, features)
        self._folders = dict(splits)
        self._fields = {key: key for key in features} | {CAPTION: "text"} | dict(fields or {})
        self._fields |= {IMAGE: "file_name"}

    def shards(self, split: str) -> list[str]:
        """Returns a split's folders, in order."""
        folders = self._folders[split]
        return [
            str(data_dir() / folder)
            for folder in ([folders] if isinstance(folders, str) else folders)
        ]

    def open(self, shards: Sequence[str]) -> Records:
        """Lists folders, or reads their metadata, for reading by index."""
        return ShardRecords([self._open(path) for path in shards])

    def _open(self, path: str) -> Shard:
        folder = Folder(path)
        for name, opener in METADATA.items():
            if os.path.exists(os.path.join(path, name)):
                images = folder if IMAGE in self._features else None
                return opener(os.path.join(path, name), self._features, self._fields, images)
        return CaptionedImages(path, self._features)


class CaptionedImages(Shard):
    """One folder of images and text files."""

    def __init__(self, path: str, features: Features):
        """Lists the images; links to folders are not followed.

        Args:
          path: the folder.
          features: of the records: the image, the caption or both.

        Raises:
          UserError: the folder is missing, has no captioned image, or other features are wanted.
        """
        self.name, self._folder, self._features = path, Folder(path), features
        self._labels = {key: f"the {key}" for key in features}
        others = sorted(set(features) - {IMAGE, CAPTION})
        if others:
            raise UserError(f"{path} has no {' nor '.join(METADATA)} that could hold {others}.")
        files = sorted(_files(path))
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
        """Reads images and their captions."""
        return [attempt(self._read, self._images[position]) for position in positions]

    def _read(self, name: str) -> bytes:
        values: dict[str, object] = {}
        if IMAGE in self._features:
            values[IMAGE] = self._folder.read(name)
        if CAPTION in self._features:
            content = self._folder.read(_caption(name), "caption", LONGEST)
            values[CAPTION] = decode(content.removeprefix(BOM), "caption").strip()
        return encode(values, self._features, self._labels)


def _files(folder: str) -> list[str]:
    return [
        os.path.relpath(os.path.join(place, name), folder)
        for place, _, names in os.walk(folder)
        for name in names
        if not name.startswith(".")  # macOS leaves ._dog.jpg beside dog.jpg
    ]


def _caption(image: str) -> str:
    return os.path.splitext(image)[0] + ".txt"
