"""`simvlm caption`: captions for files, folders and globs, as JSON lines."""

import argparse
import contextlib
import glob
import itertools
import json
import os
import sys
import time
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, TextIO

from simvlm_jax.cli import options
from simvlm_jax.errors import UserError

if TYPE_CHECKING:
    import numpy as np

HELP = "caption images with a trained model, as JSON lines"
EXAMPLE = "simvlm caption --model_dir=runs/demo photo.jpg pictures/ 'more/*.png'"
SUFFIXES = (".png", ".jpg", ".jpeg", ".gif", ".webp", ".bmp", ".tif", ".tiff")
SOME_FAILED = 1


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options."""
    positive = options.count_from(1)
    parser.add_argument(
        "paths",
        nargs="+",
        metavar="PATH",
        help=f"an image, a glob, or a folder, searched at all depths for {' '.join(SUFFIXES)}",
    )
    parser.add_argument("--model_dir", required=True, help="the folder of a trained model")
    parser.add_argument("--output", help="the file to write (default: standard output)")
    parser.add_argument("--batch_size", type=positive, default=32, help="images at once")
    parser.add_argument("--beams", type=positive, help="1 is greedy (default: the model's)")
    parser.add_argument("--prompt", help="text the caption goes on from (default: the model's)")
    parser.add_argument("--step", type=int, help="which checkpoint (default: the newest)")
    parser.add_argument("--max_length", type=positive, help="most tokens of a caption")


def run(args: argparse.Namespace) -> int:
    """Writes {"image", "caption", "score"} for each image that can be read, in order.

    Returns:
        The exit code: 1 if anything had to be left out, else 0.

    Raises:
        UserError: If there is no image at all, or no model, or nowhere to write.
    """
    paths, failures = find_images(args.paths)
    if not paths:
        raise UserError(failures[0])
    for sentence in failures:
        print(sentence, file=sys.stderr)
    from simvlm_jax.captioner import Captioner  # brings JAX, seconds to import

    captioner = Captioner.load(
        args.model_dir, step=args.step, beams=args.beams, max_length=args.max_length
    )
    prompt = captioner.prompt if args.prompt is None else args.prompt
    progress = _Progress(len(paths))
    images = _readable(paths, captioner.image_size, progress)
    with _open(args.output) as output:
        for batch in _batches(images, args.batch_size):
            names, pixels = zip(*batch, strict=True)
            captions = captioner.caption(_stack(pixels), prompt)
            for name, (caption, score) in zip(names, captions, strict=True):
                line = {"image": _printable(name), "caption": caption, "score": round(score, 4)}
                print(json.dumps(line, ensure_ascii=False), file=output)
            output.flush()
            progress.show(len(batch))
    return SOME_FAILED if failures or progress.failed else 0


def find_images(patterns: Iterable[str]) -> tuple[list[str], list[str]]:
    """Expands files, folders and globs.

    Args:
        patterns: Paths and globs, `**` among them; what exists under its name is no glob. Hidden
            files in folders are left out.

    Returns:
        The files, each once, in the order of the patterns and sorted within one; and a sentence
        for each pattern that leads to none.
    """
    found: dict[str, None] = {}
    failures = []
    for pattern in patterns:
        if os.path.exists(pattern) or not glob.has_magic(pattern):
            matches = [pattern] if os.path.exists(pattern) else []
        else:
            matches = sorted(glob.glob(pattern, recursive=True))
        files = [file for match in matches for file in _files(match)]
        found.update(dict.fromkeys(files))
        if not matches:
            failures.append(f"There is no file {_printable(pattern)}: check the path.")
        elif not files:
            failures.append(f"There is no image in {_printable(pattern)}: give another folder.")
    return list(found), failures


def _files(path: str) -> Iterator[str]:
    if not os.path.isdir(path):
        yield path
        return
    for folder, folders, names in os.walk(path):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            if name.lower().endswith(SUFFIXES) and not name.startswith("."):
                yield os.path.join(folder, name)


def _readable(
    paths: list[str], image_size: tuple[int, int], progress: "_Progress"
) -> Iterator[tuple[str, "np.ndarray"]]:
    from simvlm_jax.data.pillow_images import load_image

    for path in paths:
        try:
            yield path, load_image(path, image_size)
        except UserError as error:
            progress.fail(_printable(str(error)))


def _batches(images: Iterator, size: int) -> Iterator[list]:
    while batch := list(itertools.islice(images, size)):
        yield batch


def _stack(pixels: Iterable["np.ndarray"]) -> "np.ndarray":
    import numpy as np

    return np.stack(list(pixels))


def _printable(name: str) -> str:
    """Replaces what is no UTF-8 in a file's name, which could not be written."""
    return os.fsencode(name).decode("utf-8", "replace")


@contextlib.contextmanager
def _open(output: str | None) -> Iterator[TextIO]:
    if output is None:
        yield sys.stdout
        return
    try:
        file = open(output, "w", encoding="utf-8")
    except OSError as error:
        raise UserError(f"{output} cannot be written: {error.strerror}.") from error
    with file:
        yield file


class _Progress:
    """One line on stderr, overwritten as images are done; nothing where nobody watches."""

    def __init__(self, total: int) -> None:
        self.failed = 0
        self._done, self._total = 0, total
        self._start = time.monotonic()
        self._line = ""

    def show(self, count: int) -> None:
        self._done += count
        if not sys.stderr.isatty():
            return
        seconds = time.monotonic() - self._start
        done = self._done + self.failed
        left = (self._total - done) * seconds / done
        line = f"{done}/{self._total} images, {done / seconds:.1f} a second, {left:.0f} s left"
        end = "\n" if done == self._total else ""
        print(f"\r{line:<{len(self._line)}}", end=end, file=sys.stderr, flush=True)
        self._line = line

    def fail(self, sentence: str) -> None:
        self.failed += 1
        start = "\n" if self._line else ""
        print(f"{start}{sentence}", file=sys.stderr, flush=True)
        self._line = ""
