"""What the makers share: drawings, and files in the formats of the official ones."""

import io
import json
from collections.abc import Iterable, Mapping
from pathlib import Path

from PIL import Image, ImageDraw

PIXELS = 32
COLOURS = ("red", "green", "blue", "yellow")
SHAPES = ("circle", "square")


def drawing(colour: str, shape: str, image_format: str = "JPEG", pixels: int = PIXELS) -> bytes:
    """An encoded image: one coloured shape on white."""
    image = Image.new("RGB", (pixels, pixels), "white")
    box = (pixels // 4, pixels // 4, 3 * pixels // 4, 3 * pixels // 4)
    pen = ImageDraw.Draw(image)
    (pen.ellipse if shape == "circle" else pen.rectangle)(box, fill=colour)
    return encoded(image, image_format)


def encoded(image: Image.Image, image_format: str) -> bytes:
    content = io.BytesIO()
    image.save(content, image_format)
    return content.getvalue()


def write(path: Path, content: bytes | str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)


def write_json(path: Path, value: object) -> None:
    write(path, json.dumps(value))


def write_json_lines(path: Path, rows: Iterable[Mapping]) -> None:
    write(path, "".join(json.dumps(row) + "\n" for row in rows))
