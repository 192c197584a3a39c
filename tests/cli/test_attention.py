"""`simvlm caption --attention`: the page, on one process and on two."""

import base64
import io
import json
import re
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from cli.test_several_processes import finish, start
from simvlm_jax.captioner import Captioner
from simvlm_jax.cli.main import main
from simvlm_jax.data.pillow_images import load_image
from simvlm_jax.pages import attention
from trained_folder import CONFIG, make_model_dir


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory):
    return make_model_dir(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder, random = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    for number in range(5):
        pixels = random.integers(0, 256, (1, 1, 3)) + random.integers(-40, 40, (40, 30, 3))
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / f"{number}.png")
    (folder / "2.png").write_bytes(b"no image")
    return folder


@pytest.fixture(scope="module")
def alone(model_dir, pictures, tmp_path_factory):
    """The folder in which one process wrote captions and a page."""
    folder = tmp_path_factory.mktemp("alone")
    assert main(command(model_dir, pictures, folder)) == 1  # one of the pictures is none
    return folder


def command(model_dir, pictures, folder, batch=3):
    found = ["caption", f"--model_dir={model_dir}", str(pictures), f"--output={folder}/captions"]
    return [*found, f"--attention={folder}/look.html", f"--batch_size={batch}"]


def captions(folder):
    return [json.loads(line) for line in (folder / "captions").read_text().splitlines()]


def figures(folder):
    """[(caption, picture, [(word, heat map), ...]), ...] of a page."""
    found = []
    for text in (folder / "look.html").read_text("utf-8").split("<figure")[1:]:
        pixels = [
            np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))
            for data in re.findall(r"image/png;base64,([A-Za-z0-9+/=]+)", text)
        ]
        words = re.findall(r'class="heat" alt="([^"]*)"', text)
        caption = re.search(r'class="caption">([^<]*)<', text)[1]
        found.append((caption, pixels[0], list(zip(words, pixels[1:], strict=True))))
    return found


def test_the_page_shows_every_image_that_was_captioned(alone, model_dir, pictures):
    shown = figures(alone)
    assert [caption for caption, *_ in shown] == [line["caption"] for line in captions(alone)]
    assert "4 of 4 images" in (alone / "look.html").read_text()
    looks = Captioner.load(model_dir).look(
        np.stack([load_image(pictures / f"{i}.png", CONFIG.image_size) for i in (0, 1, 3, 4)]),
        "a picture of",
    )
    for number, (caption, picture, words), look in zip((0, 1, 3, 4), shown, looks, strict=True):
        np.testing.assert_array_equal(
            picture, load_image(pictures / f"{number}.png", CONFIG.image_size)
        )
        assert " ".join(word for word, _ in words) == caption == look.caption
        for (_, heat), (_, weights) in zip(words, look.words, strict=True):
            expected = 255 * 0.85 * weights / weights.max()
            np.testing.assert_allclose(heat[..., 3], expected, atol=1)


def test_captions_are_those_without_a_page(alone, model_dir, pictures, capsys):
    assert main(["caption", f"--model_dir={model_dir}", str(pictures), "--batch_size=3"]) == 1
    plain = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert plain == captions(alone)


def test_two_processes_write_the_page_of_one(alone, model_dir, pictures, tmp_path):
    codes, said = finish(start(2, [command(model_dir, pictures, tmp_path)]))
    assert codes == [1, 1], said
    one, two = figures(alone), figures(tmp_path)
    assert [caption for caption, *_ in two] == [caption for caption, *_ in one]
    for (_, left, words), (_, right, others) in zip(one, two, strict=True):
        np.testing.assert_array_equal(left, right)
        for (_, heat), (_, other) in zip(words, others, strict=True):
            np.testing.assert_allclose(heat[..., 3].astype(int), other[..., 3], atol=2)


def test_only_the_first_images_are_shown_and_looked_at(model_dir, pictures, tmp_path, monkeypatch):
    monkeypatch.setattr("simvlm_jax.cli.gallery.MOST_IMAGES", 3)
    looked, look = [], Captioner.look
    monkeypatch.setattr(Captioner, "look", lambda *args: looked.append(1) or look(*args))
    assert main(command(model_dir, pictures, tmp_path, batch=1)) == 1
    assert len(captions(tmp_path)) == 4 and len(looked) == 3
    assert len(figures(tmp_path)) == 3
    assert "3 of 4 images, 1 left out" in (tmp_path / "look.html").read_text()
    assert attention.MOST_IMAGES > 3  # the page itself would have shown more


@pytest.mark.parametrize("place", ["nowhere/look.html", "."])
def test_a_page_that_can_t_be_written_is_refused_before_the_work(place, pictures, tmp_path, capsys):
    arguments = ["--model_dir=nowhere", str(pictures), f"--attention={tmp_path / place}"]
    assert main(["caption", *arguments]) == 2
    printed = capsys.readouterr().err
    assert "cannot be written" in printed and printed.count("\n") == 1


def test_help_imports_nothing_heavy():
    program = (
        "import sys; from simvlm_jax.cli import caption\n"
        "sys.exit(str({'numpy', 'PIL', 'jax'} & set(sys.modules) or ''))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stderr.strip() == ""
