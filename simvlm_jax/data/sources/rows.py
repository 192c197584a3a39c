"""What JSON lines and tables have in common: named fields, one of which may name an image."""

from collections.abc import Mapping, Sequence

from simvlm_jax.data.sources.base import Features, Unreadable, attempt
from simvlm_jax.data.sources.cached_text import LARGEST, cached_text
from simvlm_jax.data.sources.encoding import ABSENT, IMAGE, check_features, encode
from simvlm_jax.data.sources.named_files import Folder, folder_of, open_folder
from simvlm_jax.data.sources.patterns import Patterns, PatternSource, placed
from simvlm_jax.data.sources.shards import FileShard


class RowSource(PatternSource):
    """Records in the rows of text files, local or remote, also packed as .gz or .zst."""

    def __init__(
        self,
        name: str,
        splits: Mapping[str, Patterns],
        features: Features,
        images: str | None = None,
        image_field: str = "image",
        fields: Mapping[str, str] | None = None,
    ):
        """Describes the source.

        Args:
          name: what sentences call it.
          splits: of each split, its files as `find_shards` takes them.
          features: of the records. `image/encoded` is the content of an image file.
          images: the folder that image paths start from, relative to the data folder or a URL; by
            default the folder of the file that names them. None may leave it.
          image_field: the field that holds the image's path.
          fields: feature name -> name of its field; by default they are equal.

        Raises:
          UserError: a feature that a row cannot give.
        """
        super().__init__(name, splits, features)
        check_features(name, features)
        self._images = images
        self._fields = {key: key for key in features} | dict(fields or {})
        self._fields |= {IMAGE: image_field} if IMAGE in features else {}

    def folder(self, path: str) -> str:
        """Returns the path of the folder of the images that a file names."""
        if self._images is None:
            return folder_of(path)
        return placed(self._images, f"The images of {self._name}")


class RowShard(FileShard):
    """The rows of one text file."""

    def __init__(
        self,
        path: str,
        features: Features,
        labels: Mapping[str, str],
        folder: str | None,
        largest: int = LARGEST,
    ):
        """Takes the file.

        Args:
          path: the file, as `cached_text` takes it.
          features: of the records.
          labels: what sentences call each.
          folder: path of the folder of the images, if the features have one.
          largest: most bytes of the file, unpacked.

        Raises:
          UserError: it cannot be read, or there is no such folder.
        """
        super().__init__(cached_text(path, largest), path)
        self._features, self._labels = features, labels
        self._folder = open_folder(folder) if folder and IMAGE in features else None

    def read(self, positions: Sequence[int]) -> list[bytes | Unreadable]:
        """Reads rows, and the images that they name, all at once."""
        rows = super().read(positions)
        if self._folder is not None:
            self._put_images(rows, self._folder)
        return [
            row
            if isinstance(row, Unreadable)
            else attempt(encode, row, self._features, self._labels)
            for row in rows
        ]

    def _put_images(self, rows: list[dict[str, object] | Unreadable], folder: Folder) -> None:
        naming = [
            slot
            for slot, row in enumerate(rows)
            if not isinstance(row, Unreadable) and row[IMAGE] not in (None, ABSENT)
        ]
        images = folder.read([rows[slot][IMAGE] for slot in naming])
        for slot, image in zip(naming, images, strict=True):
            rows[slot] = image if isinstance(image, Unreadable) else {**rows[slot], IMAGE: image}
