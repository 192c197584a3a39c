"""`simvlm caption`: captions for files, folders and globs, as JSON lines."""

import argparse
import contextlib
import glob
import hashlib
import json
import os
import sys
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, TextIO

from simvlm_jax.cli import options
from simvlm_jax.errors import UserError, writing

if TYPE_CHECKING:
    import numpy as np

    from simvlm_jax.captioner import Captioner
    from simvlm_jax.cli.gallery import NoPage

HELP = "caption images with a trained model, as JSON lines"
EXAMPLE = "simvlm caption --model_dir=runs/demo photo.jpg pictures/ 'more/*.png'"
SUFFIXES = (".png", ".jpg", ".jpeg", ".gif", ".webp", ".bmp", ".tif", ".tiff")
SOME_FAILED = 1
MOST_READERS, BATCHES_AHEAD = 16, 2  # threads that decode, and batches that wait in memory


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
    options.add_step(parser)
    parser.add_argument("--max_length", type=positive, help="most tokens of a caption")
    parser.add_argument(
        "--attention",
        metavar="FILE.html",
        help="also write a page of the first images: for each word, where the decoder looked",
    )
    options.add_processes(parser)


def run(args: argparse.Namespace) -> int:
    """Writes {"image", "caption", "score"} for each image that can be read, in order.

    Returns:
        The exit code: 1 if anything had to be left out, else 0.

    Raises:
        UserError: If there is no image at all, or no model, or nowhere to write.
    """
    options.join_processes(args)
    paths, failures = find_images(args.paths)
    if not paths:
        raise UserError(failures[0])
    from simvlm_jax import hosts  # brings JAX, seconds to import
    from simvlm_jax.captioner import Captioner
    from simvlm_jax.cli.gallery import page_at

    page = page_at(args.attention)
    tells = hosts.is_first()
    names = hashlib.sha256("\0".join(paths).encode("utf-8", "surrogateescape"))
    hosts.require_same("images", names.hexdigest(), "give paths on a disk that all hosts share")
    for sentence in failures if tells else ():
        print(sentence, file=sys.stderr)
    captioner = Captioner.load(
        args.model_dir, step=options.step_of(args), beams=args.beams, max_length=args.max_length
    )
    prompt = captioner.prompt if args.prompt is None else args.prompt
    progress = Progress(len(paths), tells)
    with _open(args.output if tells else os.devnull) as output:
        caption_files(captioner, paths, args.batch_size, prompt, output, progress, page)
    if tells:
        page.write(len(paths) - progress.failed)
    return SOME_FAILED if failures or progress.failed else 0


def caption_files(
    captioner: "Captioner",
    paths: Sequence[str],
    batch_size: int,
    prompt: str,
    output: TextIO,
    progress: "Progress",
    page: "NoPage",
) -> None:
    """Writes a line for each image that can be read, in order, while the next ones are read.

    Args:
        captioner: The model.
        paths: Of the images.
        batch_size: How many to caption at once.
        prompt: As `Captioner.caption` takes it.
        output: Where to write; after each batch it is flushed.
        progress: Is told of each batch, and of what cannot be read.
        page: Captions each batch.
    """
    for some, images, failures in _read(captioner, paths, batch_size):
        for line in _caption(captioner, some, images, failures, prompt, progress, page):
            print(json.dumps(line, ensure_ascii=False), file=output)
        output.flush()
        progress.show(len(some))


def _read(captioner: "Captioner", paths: Sequence[str], batch_size: int) -> Iterator[tuple]:
    """Reads this process's share of each batch, by threads and ahead of the model.

    Yields:
        A batch's paths, its images uint8 [B, H, W, 3], and what is wrong with those of them that
        cannot be read, by number.
    """
    from simvlm_jax.data.pillow_images import load_image

    waiting: deque[tuple] = deque()
    pool = ThreadPoolExecutor(min(MOST_READERS, os.cpu_count() or 1))
    try:
        for start in range(0, len(paths), batch_size):
            some = paths[start : start + batch_size]
            jobs = {
                row: pool.submit(load_image, some[row], captioner.image_size)
                for row in captioner.rows(len(some))
            }
            waiting.append((some, jobs))
            if len(waiting) > BATCHES_AHEAD:
                yield _collected(captioner, *waiting.popleft())
        while waiting:
            yield _collected(captioner, *waiting.popleft())
    finally:
        pool.shutdown(cancel_futures=True)


def _collected(
    captioner: "Captioner", paths: Sequence[str], jobs: Mapping[int, Future]
) -> tuple[Sequence[str], "np.ndarray", dict[str, str]]:
    import numpy as np

    images = np.zeros((len(paths), *captioner.image_size, 3), np.uint8)
    failures: dict[str, str] = {}  # by the image's number, a string as JSON wants it
    for row, job in jobs.items():
        try:
            images[row] = job.result()
        except UserError as error:
            failures[str(row)] = printable(str(error))
    return paths, images, failures


def _caption(
    captioner: "Captioner",
    paths: Sequence[str],
    images: "np.ndarray",
    failures: Mapping[str, str],
    prompt: str,
    progress: "Progress",
    page: "NoPage",
) -> Iterator[dict]:
    """Captions a batch of which each process has read its own share."""
    from simvlm_jax import hosts

    found = {row: s for part in hosts.gather("images", failures) for row, s in part.items()}
    for _, sentence in sorted(found.items(), key=lambda item: int(item[0])):
        progress.fail(sentence)
    if len(found) < len(paths):
        captions = page.captions(captioner, images, prompt, paths, set(map(int, found)))
        for row, (path, (caption, score)) in enumerate(zip(paths, captions, strict=True)):
            if str(row) not in found:
                yield {"image": printable(path), "caption": caption, "score": round(score, 4)}


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
            failures.append(f"There is no file {printable(pattern)}: check the path.")
        elif not files:
            failures.append(f"There is no image in {printable(pattern)}: give another folder.")
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


def printable(name: str) -> str:
    """Replaces what is no UTF-8 in a file's name, which could not be written."""
    return os.fsencode(name).decode("utf-8", "replace")


@contextlib.contextmanager
def _open(output: str | None) -> Iterator[TextIO]:
    if output is None:
        yield sys.stdout
        return
    with writing(output), open(output, "w", encoding="utf-8") as file:
        yield file


class Progress:
    """One line on stderr, overwritten as images are done; nothing where nobody watches.

    Attributes:
        failed: How many images could not be read so far.
    """

    def __init__(self, total: int, tells: bool) -> None:
        """Starts to count.

        Args:
            total: How many images there are.
            tells: Whether this process says anything.
        """
        self.failed, self._tells = 0, tells
        self._done, self._total = 0, total
        self._start = time.monotonic()
        self._line = ""

    def show(self, count: int) -> None:
        """Counts images that are done, and tells."""
        self._done += count
        if not (self._tells and sys.stderr.isatty()):
            return
        seconds = time.monotonic() - self._start
        left = (self._total - self._done) * seconds / self._done
        line = f"{self._done}/{self._total} images, {self._done / seconds:.1f} a second"
        line += f", {left:.0f} s left"
        end = "\n" if self._done == self._total else ""
        print(f"\r{line:<{len(self._line)}}", end=end, file=sys.stderr, flush=True)
        self._line = line

    def fail(self, sentence: str) -> None:
        """Counts an image that cannot be read, and says why."""
        self.failed += 1
        if not self._tells:
            return
        start = "\n" if self._line else ""
        print(f"{start}{sentence}", file=sys.stderr, flush=True)
        self._line = ""
