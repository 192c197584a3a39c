import json
import os
import shutil
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from PIL import Image

from simvlm_jax.captioner import Captioner
from simvlm_jax.cli import caption
from simvlm_jax.cli.main import main
from simvlm_jax.data.pillow_images import load_image
from trained_folder import CONFIG, PROMPT, make_model_dir


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory):
    return make_model_dir(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def captioner(model_dir):
    return Captioner.load(model_dir, max_length=6)


@pytest.fixture
def opened(captioner, monkeypatch):
    """Lets every command use one captioner, which has compiled already; notes how it is opened."""
    calls = []

    def load(model_dir, **options):
        calls.append((model_dir, options))
        return captioner

    monkeypatch.setattr(Captioner, "load", load)
    return calls


@pytest.fixture
def pictures(tmp_path, monkeypatch):
    """A folder with five images, a text and a folder in it, as the working directory."""
    random = np.random.default_rng(0)
    names = ("b.png", "a.JPG", "deep/er/c.webp", "deep/d.png", "[e].png", ".hidden.png")
    for name in names:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (40, 30, 3), np.uint8)).save(path)
    (tmp_path / "notes.txt").write_text("no image")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def lines_of(text):
    return [json.loads(line) for line in text.splitlines()]


def test_one_line_for_each_image_in_order(opened, captioner, pictures, capsys):
    paths = ["b.png", "a.JPG", "deep/d.png"]
    assert main(["caption", "--model_dir=run", *paths]) == 0
    printed = capsys.readouterr()
    lines = lines_of(printed.out)
    images = np.stack([load_image(path, CONFIG.image_size) for path in paths])
    expected = captioner.caption(images, PROMPT)
    assert [list(line) for line in lines] == [["image", "caption", "score"]] * 3
    assert [line["image"] for line in lines] == paths
    assert [line["caption"] for line in lines] == [text for text, _ in expected]
    assert [line["score"] for line in lines] == [round(score, 4) for _, score in expected]
    assert opened == [("run", {"step": None, "beams": None, "max_length": None})]
    assert printed.err == ""  # nobody watches


def test_batches_of_any_size_give_the_same_lines(opened, pictures, capsys):
    outputs = []
    for size in (1, 2, 5):
        assert main(["caption", "--model_dir=run", f"--batch_size={size}", "."]) == 0
        outputs.append(lines_of(capsys.readouterr().out))
    assert len(outputs[0]) == 5
    for other in outputs[1:]:
        for left, right in zip(outputs[0], other, strict=True):
            assert left == right | {"score": pytest.approx(right["score"], abs=2e-4)}


def test_images_are_read_ahead_and_not_without_end(opened, captioner, pictures, monkeypatch):
    for number in range(20):
        shutil.copy("b.png", f"more{number:02}.png")
    read, seen = [], []

    def slow_caption(images, prompt):
        time.sleep(0.1)  # all that may be read ahead has time to be
        seen.append(len(read))
        return [("text", 0.0)] * len(images)

    def reading(path, size):
        read.append(path)
        return load_image(path, size)

    monkeypatch.setattr(captioner, "caption", slow_caption)
    monkeypatch.setattr("simvlm_jax.data.pillow_images.load_image", reading)
    assert main(["caption", "--model_dir=run", "--batch_size=2", "--output=o", "more*.png"]) == 0
    ahead = [count - 2 * batch for batch, count in enumerate(seen, 1)]
    assert ahead == [4] * 8 + [2, 0]  # two batches, until there are no more
    assert [line["image"] for line in lines_of((pictures / "o").read_text())] == [
        f"more{number:02}.png" for number in range(20)
    ]


def test_a_failure_of_the_model_ends_the_reading(opened, captioner, pictures, monkeypatch):
    for number in range(20):
        shutil.copy("b.png", f"more{number:02}.png")

    def fail(images, prompt):
        raise MemoryError("no memory")

    monkeypatch.setattr(captioner, "caption", fail)
    before = threading.active_count()
    with pytest.raises(MemoryError):
        main(["caption", "--model_dir=run", "--batch_size=2", "--output=o", "more*.png"])
    assert threading.active_count() == before


def test_options_reach_the_captioner(opened, captioner, pictures, capsys, monkeypatch):
    seen = []
    answer = [("grün", -1.5)]
    monkeypatch.setattr(captioner, "caption", lambda images, prompt: seen.append(prompt) or answer)
    options = ["--beams=3", "--step=12", "--max_length=9", "--prompt="]
    assert main(["caption", "--model_dir=run", *options, "--output=out.jsonl", "b.png"]) == 0
    assert opened == [("run", {"step": 12, "beams": 3, "max_length": 9})]
    assert seen == [""]
    assert capsys.readouterr().out == ""
    text = (pictures / "out.jsonl").read_text("utf-8")
    assert text == '{"image": "b.png", "caption": "grün", "score": -1.5}\n'


def test_what_cannot_be_read_is_named_and_the_rest_goes_on(opened, pictures, capsys):
    paths = ["b.png", "notes.txt", "nowhere.png", "*.gif", "a.JPG"]
    assert main(["caption", "--model_dir=run", "--batch_size=2", *paths]) == 1
    printed = capsys.readouterr()
    assert [line["image"] for line in lines_of(printed.out)] == ["b.png", "a.JPG"]
    errors = printed.err.splitlines()
    assert len(errors) == 3
    for name in ("notes.txt", "nowhere.png", "*.gif"):
        assert sum(name in line for line in errors) == 1


def test_folders_are_searched_and_globs_expanded(pictures):
    found, failures = caption.find_images(["deep", "*.png", "."])
    deep = [os.path.join("deep", "d.png"), os.path.join("deep", "er", "c.webp")]
    assert found[:4] == [*deep, "[e].png", "b.png"]
    assert sorted(found[4:]) == sorted(
        os.path.join(".", name) for name in (*deep, "[e].png", "b.png", "a.JPG")
    )
    assert failures == []
    assert caption.find_images(["**/*.webp"]) == ([deep[1]], [])
    assert caption.find_images(["[e].png"]) == (["[e].png"], [])  # a file's name, not a glob
    assert caption.find_images(["b.png", "b.png"]) == (["b.png"], [])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nowhere.png"], "nowhere.png"),
        (["*.gif"], "*.gif"),
        (["empty"], "no image in empty"),
        (["b.png", "--batch_size=0"], "'0' is not a whole number from 1 on"),
        (["b.png", "--output=nowhere/out"], "nowhere/out cannot be written"),
        (["b.png", "--output=/dev/full"], "/dev/full cannot be written: No space left"),
    ],
)
def test_nothing_to_do_is_one_sentence_and_code_2(opened, pictures, arguments, words, capsys):
    (pictures / "empty").mkdir()
    try:
        code = main(["caption", "--model_dir=run", *arguments])
    except SystemExit as end:
        code = end.code
    printed = capsys.readouterr()
    assert code == 2 and not printed.out
    assert words in printed.err and printed.err.count("\n") == 1


def test_a_missing_model_leaves_an_older_output_alone(pictures, capsys):
    (pictures / "out.jsonl").write_text("kept")
    assert main(["caption", "--model_dir=nowhere", "--output=out.jsonl", "b.png"]) == 2
    assert capsys.readouterr().err.startswith("There is no folder nowhere")
    assert (pictures / "out.jsonl").read_text() == "kept"


def test_an_empty_checkpoint_is_one_sentence(model_dir, pictures, capsys):
    shutil.copytree(model_dir, "run", ignore=shutil.ignore_patterns("checkpoints"))
    assert main(["caption", "--model_dir=run", "b.png"]) == 2
    printed = capsys.readouterr().err
    assert "There is no checkpoint" in printed and printed.count("\n") == 1


def test_a_name_that_is_no_utf8_can_be_written(opened, pictures, capsys):
    odd = os.fsdecode(b"\xff.png")
    try:
        shutil.copy("b.png", odd)
    except OSError:
        pytest.skip("this file system takes no such name")
    assert main(["caption", "--model_dir=run", odd]) == 0
    assert lines_of(capsys.readouterr().out)[0]["image"] == "\N{REPLACEMENT CHARACTER}.png"


def test_a_person_at_a_terminal_sees_what_is_left(opened, pictures, capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    paths = ["b.png", "notes.txt", "a.JPG"]
    assert main(["caption", "--model_dir=run", "--batch_size=1", *paths]) == 1
    printed = capsys.readouterr().err
    assert "\r1/3 images, " in printed and "s left" in printed
    assert "\nnotes.txt" in printed  # on a line of its own
    assert printed.rstrip().split("\r")[-1].startswith("3/3 images") and printed.endswith("\n")


def test_captioning_imports_no_tensorflow(model_dir, pictures):
    program = (
        "import sys; from simvlm_jax.cli.main import main; code = main(sys.argv[1:])\n"
        "heavy = {'tensorflow', 'seqio', 'gin'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else code)"
    )
    command = [sys.executable, "-c", program, "caption", f"--model_dir={model_dir}"]
    done = subprocess.run([*command, "--max_length=1", "."], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert len(lines_of(done.stdout)) == 5
