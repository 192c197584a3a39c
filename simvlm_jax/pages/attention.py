"""A page of captioned images: for each word, where in the image the decoder looked."""

import base64
import io
from collections.abc import Sequence
from html import escape
from typing import NamedTuple

import numpy as np
from PIL import Image

from simvlm_jax.pages.charts import short_number
from simvlm_jax.pages.page import page

# They bound the page: an image takes at most 150 kB as PNG, a map of 14 x 14 about 1 kB.
MOST_IMAGES, MOST_WORDS, LONGEST_SIDE = 64, 64, 224
HEAT = (214, 32, 10)
STRONGEST = 0.85  # how much of the image the strongest place of a map hides

STYLE = """
.look { margin: 0 0 1.2rem; }
.look figcaption { display: flex; flex-wrap: wrap; gap: .2rem 1rem; margin-bottom: .7rem; }
.tiles { display: grid; grid-template-columns: repeat(auto-fill, minmax(112px, 1fr)); gap: .7rem; }
.tile { text-align: center; font-size: .87rem; line-height: 1.3; overflow-wrap: anywhere; }
.tile b { display: block; }
.view {
  position: relative; border: 1px solid var(--line); background: #ffffff;
  print-color-adjust: exact;
}
.under { position: absolute; inset: 0; background: var(--picture) 0 0 / 100% 100%; }
.heat { position: absolute; inset: 0; width: 100%; height: 100%; image-rendering: pixelated; }
.grey { filter: grayscale(1) contrast(.8); }
"""


class Looked(NamedTuple):
    """An image, its caption, and where the decoder looked.

    Attributes:
      name: of the image.
      image: uint8 [H, W, 3], as the model saw it.
      caption: the text.
      score: its log probability, normalised or not.
      words: each word with its map float32 [rows, columns], which adds up to the share of
        attention on the image.
    """

    name: str
    image: np.ndarray
    caption: str
    score: float
    words: Sequence[tuple[str, np.ndarray]]


def attention_page(title: str, looked: Sequence[Looked], total: int) -> str:
    """Writes the whole page; every text in it is escaped, for captions come from strangers.

    Args:
      title: heading.
      looked: the images; those after the first `MOST_IMAGES` are left out.
      total: how many images there are, those left out included.

    Returns:
      HTML that loads nothing and runs no script.
    """
    shown = looked[:MOST_IMAGES]
    count = f"{len(shown)} of {total} images"
    if len(shown) < total:
        count += f", {total - len(shown)} left out"
    body = (
        f'<h1>{escape(title)} <span class="count">{count}</span></h1>\n'
        '<p class="count">The darker a place, the more the decoder attended to it when it chose '
        "the word; each map is scaled to its own strongest place. The percentage is the share of "
        "attention on the image: the rest is on text.</p>\n"
        f"{''.join(map(figure, shown))}"
    )
    return page(title, body, STYLE)


def figure(looked: Looked) -> str:
    """One image with its caption and a tile for each of the first `MOST_WORDS` words.

    The page that it is put into has to hold `STYLE`.
    """
    height, width = looked.image.shape[:2]
    tiles = [_tile("", "", "image", f"{width} / {height}")]
    for word, weights in looked.words[:MOST_WORDS]:
        share = f"{100 * float(weights.sum()):.0f} %"
        data = _png(_heat(weights))
        heat = f'<img class="heat" alt="{escape(word)}" src="data:image/png;base64,{data}">'
        tiles.append(_tile(heat, escape(word), share, f"{width} / {height}"))
    more = len(looked.words) - MOST_WORDS
    left_out = f'<span class="count">{more} more words</span>' if more > 0 else ""
    picture = _png(_reduced(looked.image))
    return (
        f'<figure class="panel look" style="--picture: url(data:image/png;base64,{picture})">'
        f'<figcaption><span class="caption">{escape(looked.caption) or "(nothing)"}</span>'
        f'<span class="score">score {short_number(looked.score)}</span>'
        f'<span class="given">{escape(looked.name)}</span>{left_out}</figcaption>'
        f'<div class="tiles">{"".join(tiles)}</div></figure>\n'
    )


def _tile(heat: str, word: str, note: str, aspect: str) -> str:
    grey = " grey" if heat else ""
    return (
        f'<div class="tile"><div class="view" style="aspect-ratio: {aspect}">'
        f'<div class="under{grey}"></div>{heat}</div><b>{word}</b>'
        f'<span class="count">{note}</span></div>'
    )


def _heat(weights: np.ndarray) -> Image.Image:
    """One pixel for each image token, of one colour, the more opaque the larger its weight."""
    strongest = max(float(weights.max(initial=0.0)), 1e-9)
    pixels = np.empty((*weights.shape, 4), np.uint8)
    pixels[..., :3] = HEAT
    pixels[..., 3] = np.rint(255 * STRONGEST * weights / strongest)
    return Image.fromarray(pixels)


def _reduced(image: np.ndarray) -> Image.Image:
    reduced = Image.fromarray(image)
    reduced.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
    return reduced


def _png(image: Image.Image) -> str:
    file = io.BytesIO()
    image.save(file, "PNG", optimize=True)
    return base64.b64encode(file.getvalue()).decode("ascii")
