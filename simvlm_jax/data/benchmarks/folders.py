"""Images in a folder for each class, as ImageNet is commonly kept."""

import os
from collections.abc import Iterator, Sequence

from simvlm_jax.data.sources.official import Row
from simvlm_jax.errors import UserError


def class_rows(paths: Sequence[str]) -> Iterator[Row]:
    """Yields the images of every class, classes and images by name.

    Args:
      paths: of the folder of classes to read, then of the one whose classes count: class i is its
        i-th folder by name.

    Yields:
      image, class_name (for ImageNet a WordNet id such as n01440764), label.

    Raises:
      UserError: there is no class, or one that does not count.
    """
    split = os.path.basename(paths[0])
    labels = {name: label for label, name in enumerate(_folders(paths[-1]))}
    for name in _folders(paths[0]):
        if name not in labels:
            raise UserError(
                f"{paths[0]} has a class {name!r}, which {paths[-1]} has not; the classes are the "
                "folders there."
            )
        with os.scandir(os.path.join(paths[0], name)) as entries:
            images = sorted(entry.name for entry in entries if not entry.name.startswith("."))
        for image in images:
            label = labels[name]
            yield {"image": f"{split}/{name}/{image}", "class_name": name, "label": label}


def _folders(path: str) -> list[str]:
    with os.scandir(path) as entries:
        names = sorted(e.name for e in entries if e.is_dir() and not e.name.startswith("."))
    if not names:
        raise UserError(f"{path} has no folders; each class has a folder of its own there.")
    return names
