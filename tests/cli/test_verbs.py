"""Train, finetune, evaluate, inspect and caption on a made-up data folder, as a user would."""

import json
import shutil
import subprocess
import sys

import pytest

from simvlm_jax.cli.main import main
from simvlm_jax.data.testing_records import make_data

SMALL = [
    "TOTAL_STEPS = 3",
    "BATCH_SIZE = 2",
    "IMAGE_SIZE = (32, 32)",
    "VOCABULARY_SIZE = 256",
    "config.SimVLMConfig.width = 16",
    "config.SimVLMConfig.heads = 2",
    "config.SimVLMConfig.mlp_width = 32",
    "config.SimVLMConfig.encoder_layers = 1",
    "config.SimVLMConfig.decoder_layers = 1",
    "config.SimVLMConfig.conv_layers = (1, 1, 1)",
    "config.SimVLMConfig.conv_width = 4",
]


def bindings(*lines):
    return [part for line in lines for part in ("--gin", line)]


FINETUNE = ["finetune", "--gin_file=runs/demo_translation.gin", *bindings(*SMALL)]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A prepared data folder and a run's folder, trained through the demo's own files."""
    root = tmp_path_factory.mktemp("verbs")
    data, run = make_data(root / "data"), root / "run"
    monkeypatch = pytest.MonkeyPatch()
    monkeypatch.setenv("SIMVLM_DATA_DIR", str(data))
    train = ["train", "--gin_file=runs/demo.gin", f"--model_dir={run}", "--profile=2:4"]
    assert main([*train, *bindings(*SMALL)]) == 0
    finetune = [*FINETUNE, f"--model_dir={run / 'translation'}", f"--pretrained={run}"]
    assert main(finetune) == 0
    yield data, run
    monkeypatch.undo()


@pytest.fixture(scope="module")
def metrics(folders):
    _, run = folders
    assert main(["evaluate", "--gin_file=runs/demo_evaluate.gin", f"--model_dir={run}"]) == 0
    return json.loads((run / "metrics.json").read_text())


def test_a_run_can_be_opened_without_its_configuration(folders):
    _, run = folders
    config = json.loads((run / "model_config.json").read_text())
    assert config["network"]["width"] == 16 and config["prompt"] == "a picture of"
    assert "TOTAL_STEPS = 3" in (run / "config.gin").read_text()
    assert json.loads((run / "training.json").read_text())["steps"] == 3


def test_finetuning_starts_from_the_pretrained_parameters(folders):
    from simvlm_jax.training.reading import restore_params

    _, run = folders
    before, after = restore_params(run), restore_params(run / "translation")
    moved = abs(after["token_embedding"] - before["token_embedding"])
    # Three small steps move a parameter by less than its own spread: 0.02 at the start.
    assert 0 < moved.max() < 0.02


def test_finetuning_goes_on_and_says_so_even_where_its_start_is_gone(folders, capsys):
    gone = [*FINETUNE, f"--model_dir={folders[1] / 'translation'}", "--pretrained=nowhere/at/all"]
    assert main([*gone, "--gin", "TOTAL_STEPS = 4"]) == 0
    told = capsys.readouterr().err
    first = f"{folders[1] / 'translation'} goes on from step 3; nowhere/at/all is not read again."
    assert told.splitlines()[0] == first and "step 4/4" in told


def test_finetuning_says_first_where_it_starts_and_then_what_it_took(folders, tmp_path, capsys):
    run, target = folders[1], tmp_path / "again"
    start = [f"--model_dir={target}", f"--pretrained={run}", "--step=3"]
    assert main([*FINETUNE, *start, "--gin", "TOTAL_STEPS = 1"]) == 0
    told = capsys.readouterr().err.splitlines()
    assert told[0] == f"{target} starts from the parameters of {run}."
    (took,) = (line for line in told if line.startswith(f"{run}, step 3: loaded "))
    assert "interpolated" not in " ".join(told) and "initialised" not in " ".join(told)


@pytest.mark.parametrize(
    ("pretrained", "words"),
    [
        ("nothing", "There is no folder"),
        (".", "holds no model_config.json: give the model_dir of a trained model"),
        ("unsaved", "holds no checkpoint to start from: train there first"),
        ("own", "cannot start from itself"),
    ],
)
def test_a_folder_without_a_run_is_no_start(folders, tmp_path, capsys, pretrained, words):
    for name in ("unsaved", "own"):
        (tmp_path / name).mkdir()
        shutil.copy(folders[1] / "model_config.json", tmp_path / name)
    start = [f"--model_dir={tmp_path / 'own'}", f"--pretrained={tmp_path / pretrained}"]
    assert main([*FINETUNE, *start]) == 2
    told = capsys.readouterr().err
    assert words in told and told.count("\n") == 1
    assert not (tmp_path / "own" / "checkpoints").exists()


def test_metrics_have_every_key_with_its_controls(metrics):
    assert metrics["steps"] == 3
    assert metrics["seconds"]["total"] > 0 and metrics["seconds"]["pretraining"] > 0
    for section in ("variants", "concepts"):
        for key in ("exact_match", "cider"):
            for suffix in ("", "_shuffled", "_most_frequent"):
                assert f"{key}{suffix}" in metrics[section]
        assert metrics[section]["loss"] > 0 and metrics[section]["loss_shuffled"] > 0
    for suffix in ("", "_shuffled", "_without_image"):
        assert f"chrf{suffix}" in metrics["translation"]
        assert f"exact_match{suffix}" in metrics["translation"]


def test_the_report_holds_the_images_and_the_curves(folders, metrics):
    page = (folders[1] / "report" / "index.html").read_text()
    assert page.count("data:image/png;base64,") >= metrics["variants"]["examples"]
    assert "<svg" in page and "translation" in page
    look = (folders[1] / "report" / "attention.html").read_text()
    assert look.count('class="panel look"') == 7 + 6 + 7  # all of the three small splits


def test_the_loss_is_that_of_a_plain_computation(folders, metrics):
    import numpy as np

    from simvlm_jax.evaluation.predictor import Predictor
    from simvlm_jax.training.reading import restore_params

    lengths = {"image": 1, "example_seed": 2, "inputs": 24, "targets": 24}
    predictor = Predictor(folders[1], batch_size=64)
    split = predictor.open("openmoji_captions", "variants", lengths)
    ((arrays, _),) = split.batches(64, np.arange(64))
    logits = predictor.model.network.apply(
        {"params": restore_params(folders[1])},
        arrays["image"],
        arrays["encoder_input_tokens"],
        arrays["decoder_input_tokens"],
    )
    logits = np.float64(logits)
    log_probabilities = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    targets, weights = arrays["decoder_target_tokens"], arrays["decoder_loss_weights"]
    chosen = np.take_along_axis(log_probabilities, targets[..., None], -1)[..., 0]
    assert metrics["variants"]["loss"] == pytest.approx(-(chosen * weights).sum() / weights.sum())


def test_a_second_evaluation_is_reused_until_something_changes(folders, metrics, capsys):
    _, run = folders
    command = ["evaluate", "--gin_file=runs/demo_evaluate.gin", f"--model_dir={run}"]
    written = (run / "metrics.json").stat().st_mtime_ns
    assert main(command) == 0
    assert "up to date" in capsys.readouterr().err
    assert (run / "metrics.json").stat().st_mtime_ns == written
    assert main([*command, "--gin", "evaluations.TaskEvaluation.seed = 1"]) == 0
    assert (run / "metrics.json").stat().st_mtime_ns > written


def test_an_exported_run_is_t5x_s_and_opens_as_one(folders, metrics, tmp_path, capsys):
    import jax
    import numpy as np

    from simvlm_jax.training.reading import restore_params

    output = tmp_path / "exported"
    arguments = ["--format=t5x", f"--model_dir={folders[1]}", f"--output={output}"]
    assert main(["export", *arguments]) == 0
    assert capsys.readouterr().out.strip() == str(output / "checkpoint_3")
    left, right = restore_params(output), restore_params(folders[1])
    jax.tree.map(np.testing.assert_array_equal, left, right)
    evaluation = ["--gin_file=runs/demo_captions.gin", f"--model_dir={output}"]
    assert main(["evaluate", *evaluation]) == 0
    found = json.loads((output / "metrics.json").read_text())
    assert found["steps"] == 3 and found["variants"] == pytest.approx(metrics["variants"])


def test_the_profile_holds_the_steps_asked_for(folders):
    import jax

    (path,) = (folders[1] / "profile").glob("plugins/profile/*/*.xplane.pb")
    planes = jax.profiler.ProfileData.from_file(str(path)).planes
    events = [event for plane in planes for line in plane.lines for event in line.events]
    assert [dict(e.stats)["step_num"] for e in events if e.name == "train"] == [2, 3]
    assert not (folders[1] / "translation" / "profile").exists()


def test_training_again_changes_nothing(folders):
    _, run = folders
    before = sorted((p, p.stat().st_mtime_ns) for p in (run / "checkpoints").rglob("*"))
    assert main(["train", "--gin_file=runs/demo.gin", f"--model_dir={run}", *bindings(*SMALL)]) == 0
    assert sorted((p, p.stat().st_mtime_ns) for p in (run / "checkpoints").rglob("*")) == before


def test_inspect_shows_configuration_parameters_and_batch(folders, capsys):
    files = ["--gin_file=runs/demo.gin", *bindings(*SMALL)]
    assert main(["inspect", "config", *files]) == 0
    assert "config.SimVLMConfig.width = 16" in capsys.readouterr().out
    assert main(["inspect", "params", *files]) == 0
    table = capsys.readouterr().out
    assert "token_embedding" in table and "vocab" in table and "total" in table.lower()
    assert main(["inspect", "batch", *files, "--step=2"]) == 0
    text = capsys.readouterr().out
    assert "(2, 8, 32, 32, 3)" in text and "group 0, document 0" in text
    assert text.count("-> </s>") >= 8 and "weight 1" in text and "weight 0" not in text


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--gin", "TOTAL_STEP = 5"], "TOTAL_STEP, which nothing reads"),
        (["--gin", "loop.train.colour = 5"], "colour"),
        (["--gin", "config.SimVLMConfig.heads = 5"], "not a multiple of heads=5"),
        (["--gin", "IMAGE_SIZE = (33, 32)"], "multiples of patch_size=16"),
        (["--gin", "IMAGE_SIZE = 32"], "image_size=32 must be a tuple"),
        (["--gin", "TOTAL_STEPS = 1e4"], "total_steps=10000.0 is not a whole number"),
        (["--gin", "CHECKPOINT_PERIOD = 0"], "checkpoint_every=0 is not a whole number"),
        (["--gin", "VOCABULARY_SIZE = 200"], "248 ids, sentinels included, and the model only 200"),
        (["--gin", "loop.train.log_every = 0"], "log_every=0 is not a whole number"),
        (["--gin", "variant/config.SimVLMConfig.heads = 1"], "variant/config.SimVLMConfig, which"),
        (["--gin_file=runs/none.gin"], "runs/none.gin"),
        (["--gin", "PAIRS = {'no_such_task': 8}"], "no_such_task"),
        (["--data_dir=/nowhere/at/all"], "/nowhere/at/all"),
        (["--profile=3:5"], "profile=3:5 asks for steps 3 to 4, beyond the run's last, 3"),
        (["--gin", "loop.train.profile = (0, 2)"], "profile=(0, 2) is no pair of step numbers"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_2(folders, tmp_path, capsys, arguments, words):
    files = ["--gin_file=runs/demo.gin", *bindings(*SMALL)]
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("SIMVLM_DATA_DIR", str(folders[0]))
        code = main(["train", *files, f"--model_dir={tmp_path / 'run'}", *arguments])
    sentence = capsys.readouterr().err.strip().splitlines()[-1]
    assert code == 2 and words in sentence


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["params", "--gin", "IMAGE_SZIE = (48, 48)"], "IMAGE_SZIE, which nothing reads"),
        (["batch", "--step=-1"], "'-1' is not a whole number from 0 on"),
        (["batch", "--groups=0"], "'0' is not a whole number from 1 on"),
    ],
)
def test_inspect_refuses_in_one_sentence(folders, capsys, arguments, words):
    try:
        code = main(["inspect", *arguments, "--gin_file=runs/demo.gin", *bindings(*SMALL)])
    except SystemExit as stopped:
        code = stopped.code
    assert code == 2 and words in capsys.readouterr().err.strip().splitlines()[-1]


def test_a_model_dir_that_is_a_file_is_refused(folders, tmp_path, capsys):
    (tmp_path / "run").write_text("")
    files = ["--gin_file=runs/demo.gin", *bindings(*SMALL)]
    assert main(["train", *files, f"--model_dir={tmp_path / 'run'}"]) == 2
    assert f"{tmp_path / 'run'}" in capsys.readouterr().err.strip().splitlines()[-1]


def test_another_configuration_on_resuming_is_told(folders, tmp_path, capsys):
    run = shutil.copytree(folders[1], tmp_path / "run")
    longer = [line.replace("TOTAL_STEPS = 3", "TOTAL_STEPS = 4") for line in SMALL]
    files = ["--gin_file=runs/demo.gin", *bindings(*longer, "LEARNING_RATE = 1e-4")]
    assert main(["train", *files, f"--model_dir={run}"]) == 0
    told = capsys.readouterr().err
    assert "config.gin changes: - LEARNING_RATE = 0.001, + LEARNING_RATE = 0.0001" in told


def test_another_vocabulary_than_the_checkpoints_is_refused(folders, tmp_path, capsys):
    from simvlm_jax.data.vocabulary import train_vocabulary

    _, run = folders
    data = make_data(tmp_path / "data")
    train_vocabulary(["other words entirely, many of them"] * 50, data / "vocabulary.model", 160)
    code = subprocess.run(
        [sys.executable, "-m", "simvlm_jax.cli.main", "evaluate"]
        + ["--gin_file=runs/demo_evaluate.gin", f"--model_dir={run}", f"--data_dir={data}"],
        capture_output=True,
        text=True,
    )
    assert code.returncode == 2
    assert "vocabulary" in code.stderr.strip().splitlines()[-1]
