"""Has tensorflow-datasets itself write a small data set."""

import importlib.resources
import importlib.resources.abc
import sys


def write_tfds(
    folder, kinds, rows, file_format="tfrecord", name="own", splits=("train",), shards=1
):
    """Writes a data set in the order of its rows.

    Args:
      folder: where.
      kinds: feature -> "text", "texts", "image" (PNG), or a feature of tensorflow-datasets.
      rows: what each record has of every feature; an image as its array.
      file_format: "tfrecord" or "array_record".
      name: of the data set.
      splits: all with the same rows.
      shards: of each split.
    """
    # tensorflow-datasets imports its backport to find its own folder, and does not ask for it.
    sys.modules.setdefault("importlib_resources", importlib.resources)
    import tensorflow_datasets as tfds

    known = {
        "text": tfds.features.Text(),
        "texts": tfds.features.Sequence(tfds.features.Text()),
        "image": tfds.features.Image(encoding_format="png"),
    }
    features = {
        name: known[kind] if isinstance(kind, str) else kind for name, kind in kinds.items()
    }
    tfds.dataset_builders.store_as_tfds_dataset(
        name=name,
        version="1.0.0",
        features=tfds.features.FeaturesDict(features),
        split_datasets={split: list(enumerate(rows)) for split in splits},
        data_dir=str(folder),
        file_format=file_format,
        disable_shuffling=True,
        download_config=tfds.download.DownloadConfig(num_shards=shards),
    )
