"""Fashion-MNIST's four files (Debian: dataset-fashion-mnist) as a folder for each class."""

import gzip
from pathlib import Path

import numpy as np
from PIL import Image

from benchmark_makers.files import encoded, write

SOURCE = Path("/usr/share/datasets/fashion-mnist")
CLASSES = (
    "t-shirt trouser pullover dress coat sandal shirt sneaker bag ankle-boot"
).split()  # fmt: skip
FILES = {"train": "train", "val": "t10k"}


def make(folder: Path, limit: int | None, source: Path) -> None:
    """Writes `imagenet/train/0-t-shirt/00001.png` and so on; `limit` images of each split."""
    for split, name in FILES.items():
        images = _read(source / f"{name}-images-idx3-ubyte.gz", 16).reshape(-1, 28, 28)
        labels = _read(source / f"{name}-labels-idx1-ubyte.gz", 8)
        for number, (image, label) in enumerate(zip(images[:limit], labels, strict=False)):
            path = folder / "imagenet" / split / f"{label}-{CLASSES[label]}" / f"{number:05d}.png"
            write(path, encoded(Image.fromarray(image), "PNG"))


def _read(path: Path, header: int) -> np.ndarray:
    content = path.read_bytes()
    content = gzip.decompress(content) if path.suffix == ".gz" else content
    return np.frombuffer(content, np.uint8, offset=header)
