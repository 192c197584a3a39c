"""What `simvlm caption --attention` shows: the first images, and where the decoder looked."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from simvlm_jax import hosts
from simvlm_jax.captioner import Captioner
from simvlm_jax.cli.caption import printable
from simvlm_jax.data.pillow_images import load_image
from simvlm_jax.errors import UserError, writing
from simvlm_jax.pages.attention import MOST_IMAGES, Looked, attention_page
from simvlm_jax.training.folder import write_atomic


class NoPage:
    """Captions, and nothing else."""

    def captions(
        self,
        captioner: Captioner,
        images: np.ndarray,
        prompt: str,
        paths: Sequence[str],
        left_out: set[int],
    ) -> list[tuple[str, float]]:
        """Captions a batch; of several processes all must call it.

        Args:
            captioner: The model.
            images: uint8 [B, H, W, 3]; those that are not this process's may be anything.
            prompt: As `Captioner.caption` takes it.
            paths: Of the images.
            left_out: Numbers of those that could not be read.

        Returns:
            What `Captioner.caption` does.
        """
        del paths, left_out
        return captioner.caption(images, prompt)

    def write(self, total: int) -> None:
        """Writes the page.

        Args:
            total: How many images were captioned.
        """


class Page(NoPage):
    """The first images with their captions and maps."""

    def __init__(self, path: Path) -> None:
        """Keeps where to write; of several processes all must call it, and the first writes.

        Args:
            path: The page.

        Raises:
            UserError: If there is no such folder, which should be known before the work is done.
        """
        hosts.first_does("the page", lambda: _require_folder(path))
        self._path, self._room = path, MOST_IMAGES
        self._looked: list[Looked] = []

    def captions(
        self,
        captioner: Captioner,
        images: np.ndarray,
        prompt: str,
        paths: Sequence[str],
        left_out: set[int],
    ) -> list[tuple[str, float]]:
        """Captions a batch, and keeps its maps as long as there is room on the page."""
        if not self._room:
            return captioner.caption(images, prompt)
        looks = captioner.look(images, prompt)
        rows = [row for row in range(len(paths)) if row not in left_out][: self._room]
        self._room -= len(rows)  # on all processes: they look at the same batches
        if hosts.is_first():
            own = set(captioner.rows(len(paths)))
            for row in rows:
                image = images[row] if row in own else load_image(paths[row], captioner.image_size)
                self._looked.append(Looked(printable(paths[row]), image, *looks[row]))
        return [(look.caption, look.score) for look in looks]

    def write(self, total: int) -> None:
        """Writes the page, whole or not at all."""
        with writing(self._path):
            page = attention_page("Where the decoder looked", self._looked, total)
            write_atomic(self._path, page.encode())


def _require_folder(path: Path) -> None:
    if not path.parent.is_dir() or path.is_dir():
        raise UserError(
            f"--attention={path} cannot be written: give a file in a folder that there is."
        )


def page_at(path: str | None) -> NoPage:
    """The page that `--attention` asks for, or none.

    Args:
        path: The flag's value.
    """
    return NoPage() if path is None else Page(Path(path))
