"""Exports against the model: weights through docs/read_weights.py, the program on its own."""

import ast
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import safetensors.numpy
from flax.traverse_util import flatten_dict
from PIL import Image

from simvlm_jax import exports
from simvlm_jax.cli.main import main
from simvlm_jax.errors import UserError
from simvlm_jax.model import PrefixLMModel
from simvlm_jax.models.layouts import unscan
from simvlm_jax.testing import random_parameters, tiny_config, tiny_model
from simvlm_jax.training.checkpoints import Checkpoints
from simvlm_jax.training.reading import restore_params
from simvlm_jax.training.state import first_state
from trained_folder import CONFIG, PIECES, SMALL, STEP, make_model_dir

DOCS = Path(__file__).parents[1] / "docs"
# Several blocks of a stage, all three stages, two layers on each side.
DEEP = tiny_config(vocabulary_size=PIECES + 4, conv_layers=(2, 2, 1), image_size=(48, 80))


def script(name):
    spec = importlib.util.spec_from_file_location(name, DOCS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def deep(tmp_path_factory):
    """A run's folder and its exported weights."""
    run = make_model_dir(tmp_path_factory.mktemp("deep"), DEEP)
    output = tmp_path_factory.mktemp("exports") / "new" / "weights"
    exports.export_weights(run, output)
    return run, output


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make_model_dir(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def program(run, tmp_path_factory):
    """An exported captioner for any number of images."""
    output = tmp_path_factory.mktemp("exports") / "captioner"
    exports.export_captioner(run, output, max_length=6)
    return output


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Five images of the model's size, as files and as one array."""
    folder, random = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    images = random.integers(0, 256, (5, 1, 1, 3)) + random.integers(
        -40, 40, (5, *CONFIG.image_size, 3)
    )
    images = images.clip(0, 255).astype(np.uint8)
    np.save(folder / "images.npy", images)
    for number, image in enumerate(images):
        Image.fromarray(image).save(folder / f"{number}.png")
    return folder


@pytest.mark.parametrize("prefix", [[5, 9, 3], []])
def test_the_script_computes_the_model_s_logits(deep, prefix):
    run, output = deep
    image = np.random.default_rng(0).integers(0, 256, (*DEEP.image_size, 3)).astype(np.uint8)
    tokens = [0, 7, 11, 4]
    model = PrefixLMModel.from_json(json.loads((run / "model_config.json").read_text()))
    inputs = image[None], np.int32([prefix + [0, 0]]), np.int32([tokens])
    expected = jax.jit(model.network.apply)({"params": restore_params(run)}, *inputs)[0]
    found = script("read_weights").logits(output, image, np.array(prefix, int), tokens)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
    assert np.std(expected) > 0.1  # so that 1e-4 means something


def test_the_scripts_are_as_short_as_they_say():
    assert code_lines("read_weights") <= 60
    assert code_lines("run_captioner") <= 35


def code_lines(name):
    """Lines that are neither blank nor part of a docstring."""
    text = (DOCS / f"{name}.py").read_text("utf-8")
    documented = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Module | ast.FunctionDef) and ast.get_docstring(node):
            documented.update(range(node.body[0].lineno, node.body[0].end_lineno + 1))
    lines = enumerate(text.splitlines(), 1)
    return sum(1 for number, line in lines if line.strip() and number not in documented)


def test_weights_are_those_of_the_checkpoint_layer_by_layer(deep):
    run, output = deep
    found = safetensors.numpy.load_file(output / "model.safetensors")
    expected = flatten_dict(unscan(restore_params(run)), sep="/")
    assert sorted(found) == sorted(expected) and "decoder/layer_1/mlp/in/kernel" in found
    for name, leaf in expected.items():
        assert found[name].dtype == np.float32
        np.testing.assert_array_equal(found[name], leaf)


def test_configuration_and_vocabulary_come_along(deep):
    run, output = deep
    assert sorted(p.name for p in output.iterdir()) == [
        "config.json",
        "model.safetensors",
        "vocabulary.model",
    ]
    assert [p.name for p in output.parent.iterdir()] == ["weights"]  # nothing else is left behind
    values = json.loads((run / "model_config.json").read_text())
    values["network"]["scan_layers"] = False
    assert json.loads((output / "config.json").read_text()) == values
    assert (output / "vocabulary.model").read_bytes() == (run / "vocabulary.model").read_bytes()


def alone(folder, *arguments, cwd):
    """Lines that the script prints where this package cannot be imported."""
    blocked = "import sys; sys.modules['simvlm_jax'] = None\n"
    blocked += "import runpy; runpy.run_path(sys.argv.pop(1), run_name='__main__')"
    command = [sys.executable, "-c", blocked, str(DOCS / "run_captioner.py"), str(folder)]
    environment = os.environ | {"JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [*command, *arguments], env=environment, cwd=cwd, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def captions(run, pictures, capsys):
    capsys.readouterr()
    arguments = [f"--model_dir={run}", "--beams=1", "--max_length=6", str(pictures)]
    assert main(["caption", *arguments]) == 0
    return [json.loads(line)["caption"] for line in capsys.readouterr().out.splitlines()]


def test_the_program_captions_as_simvlm_does_without_this_package(run, program, pictures, capsys):
    expected = captions(run, pictures, capsys)
    assert len(set(expected)) > 1
    assert alone(program, "images.npy", cwd=pictures) == expected
    some = alone(program, "3.png", "0.png", cwd=pictures)  # another number of images
    assert some == [expected[3], expected[0]]


def test_a_batch_size_may_be_fixed(run, pictures, tmp_path, capsys):
    output = tmp_path / "two"
    flags = ["--format=stablehlo", "--batch_size=2", "--max_length=6"]
    assert main(["export", *flags, f"--model_dir={run}", f"--output={output}"]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed == [
        f"{path}: {path.stat().st_size:,} bytes" for path in sorted(output.iterdir())
    ]
    assert len(printed) == 4 and "captioner.stablehlo" in printed[0]
    shapes = jax.export.deserialize(bytearray((output / exports.PROGRAM).read_bytes())).in_avals
    assert shapes[-2].shape == (2, *CONFIG.image_size, 3) and shapes[-1].shape[0] == 2
    assert alone(output, "images.npy", cwd=pictures) == captions(run, pictures, capsys)


@pytest.mark.parametrize("changes", [{}, {"decoder_only": True, "encoder_layers": 0}])
def test_a_program_s_prompt_may_have_any_length_that_fits(changes):
    config = tiny_config(**{**SMALL, **changes}, scan_layers=True)
    model, params = tiny_model(config), random_parameters(config)
    program = exports.captioner_program(model, exports._flat(params), max_length=5)
    random = np.random.default_rng(0)
    for count, length in ((3, 4), (1, 1)):
        image = random.integers(0, 256, (count, *config.image_size, 3)).astype(np.uint8)
        prompt = random.integers(3, 32, (count, length)).astype(np.int32)
        batch = {"image": image, "encoder_input_tokens": prompt}
        batch["decoder_input_tokens"] = np.zeros((count, 5), np.int32)
        expected = jax.jit(model.predict_batch)(params, batch)
        np.testing.assert_array_equal(program.call(exports._flat(params), image, prompt), expected)
    room = 16 - 5 * config.decoder_only
    with pytest.raises(ValueError, match="prompt_length"):  # else positions would be clamped
        program.call(exports._flat(params), image, np.ones((1, room + 1), np.int32))
    with pytest.raises(UserError, match="give a smaller --max_length"):
        exports.captioner_program(model, {}, max_length=17)


def test_what_is_there_already_stays(run, tmp_path, capsys):
    for kind in ("safetensors", "stablehlo"):
        output = tmp_path / kind
        output.mkdir()
        (output / "mine").write_text("kept")
        arguments = [f"--format={kind}", f"--model_dir={run}", f"--output={output}"]
        assert main(["export", *arguments]) == 2
        assert "is there already" in capsys.readouterr().err
        assert [p.name for p in output.iterdir()] == ["mine"]
    file = tmp_path / "file"
    file.write_text("kept")
    with pytest.raises(UserError, match="is there already"):
        exports.export_weights(run, file)
    assert file.read_text() == "kept"
    (tmp_path / "empty").mkdir()
    assert len(exports.export_weights(run, tmp_path / "empty")) == 3


def test_a_failure_leaves_nothing(run, tmp_path, monkeypatch):
    def full(*_):
        raise safetensors.SafetensorError("I/O error: No space left on device")

    monkeypatch.setattr(safetensors.numpy, "save_file", full)
    with pytest.raises(UserError, match="cannot be written: I/O error: No space left"):
        exports.export_weights(run, tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_who_comes_second_to_a_folder_is_told(run, tmp_path, monkeypatch):
    """Another process makes it meanwhile."""
    write = exports._write_model

    def beaten(*arguments):
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "theirs").write_text("kept")
        write(*arguments)

    monkeypatch.setattr(exports, "_write_model", beaten)
    with pytest.raises(UserError, match="out cannot be written: Directory not empty"):
        exports.export_weights(run, tmp_path / "out")
    assert [p.name for p in tmp_path.rglob("*")] == ["out", "theirs"]


@pytest.fixture
def classifier(run, tmp_path):
    """A folder as a classifier leaves it: another kind of configuration, one parameter more."""
    folder = shutil.copytree(run, tmp_path / "run", ignore=shutil.ignore_patterns("checkpoints"))
    values = json.loads((folder / "model_config.json").read_text())
    values = {"kind": "classifier", "network": values["network"], "classes": 3}
    (folder / "model_config.json").write_text(json.dumps(values))
    params = restore_params(run) | {"classifier": {"kernel": jnp.ones((16, 3))}}
    with Checkpoints(folder) as checkpoints:
        checkpoints.save(first_state(params, optax.sgd(0.1)).replace(step=jnp.int32(STEP)))
    return folder


def test_a_classifier_has_weights_and_no_captioner(classifier, tmp_path, capsys):
    arguments = [f"--model_dir={classifier}", f"--output={tmp_path}/out"]
    assert main(["export", "--format=stablehlo", *arguments]) == 2
    assert "writes no text" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert main(["export", "--format=safetensors", *arguments]) == 0
    found = safetensors.numpy.load_file(tmp_path / "out" / "model.safetensors")
    np.testing.assert_array_equal(found["classifier/kernel"], np.ones((16, 3)))
    assert json.loads((tmp_path / "out" / "config.json").read_text())["classes"] == 3


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--format=safetensors", "--batch_size=2"], "--batch_size is for --format=stablehlo"),
        (["--format=t5x", "--max_length=2"], "--max_length is for --format=stablehlo"),
        (["--format=stablehlo", "--max_length=17"], "do not fit, give a smaller --max_length"),
        (["--format=safetensors", "--step=3"], "no checkpoint of step 3"),
        (["--format=safetensors", "--output=/proc/nowhere/out"], "/proc/nowhere/out cannot be"),
    ],
)
def test_bad_input_is_one_sentence(run, arguments, words, tmp_path, capsys):
    where = [f"--model_dir={run}", f"--output={tmp_path}/out"]
    assert main(["export", *where, *arguments]) == 2
    printed = capsys.readouterr().err
    assert words in printed and printed.count("\n") == 1
    assert not list(tmp_path.iterdir())
