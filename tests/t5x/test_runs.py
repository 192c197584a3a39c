"""T5X's own programs on SimVLM: train, evaluate, resume, finetune, infer."""

import json
import shutil

import numpy as np
import pytest

import engine

pytest.importorskip("t5x.train", reason="T5X is not installed")

from simvlm_jax.training.reading import restore_params  # noqa: E402

# Pairwise: any two values of any two factors meet in one of the rows.
#   optimizer, dtype, scanned layers, block style, devices
ROWS = [
    ("adamw", "float32", True, "vit", 1),
    ("adamw", "bfloat16", False, "t5", 8),
    ("adafactor", "float32", False, "t5", 1),
    ("adafactor", "bfloat16", True, "vit", 8),
    ("adamw", "float32", True, "t5", 8),
    ("adafactor", "bfloat16", False, "vit", 1),
]


def embedding(model_dir, step):
    return restore_params(model_dir, step)["token_embedding"]


def metrics(folder, task):
    """What seqio's evaluator has logged, a dictionary a time."""
    lines = (folder / "inference_eval" / f"{task}-metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def test_the_rows_are_pairwise():
    values = [set(column) for column in zip(*ROWS, strict=True)]
    for i, first in enumerate(values):
        for j, second in enumerate(values[:i]):
            met = {(row[i], row[j]) for row in ROWS}
            assert len(met) == len(first) * len(second), (i, j)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: "-".join(map(str, row)))
def test_trains_and_evaluates_in_every_variant(data, tmp_path, row):
    optimizer, dtype, scanned, style, devices = row
    files = ["t5x/adafactor.gin"] * (optimizer == "adafactor")
    files += ["models/t5_style.gin"] * (style == "t5")
    bindings = [f"DTYPE = '{dtype}'", f"config.SimVLMConfig.scan_layers = {scanned}"]
    bindings += engine.MESH_2X4 * (devices == 8)
    engine.pretrain(data, tmp_path, 2, *bindings, files=files, devices=devices)
    assert engine.steps(tmp_path) == [0, 2]
    assert np.isfinite(engine.logged(tmp_path)[2])
    assert np.abs(embedding(tmp_path, 2) - embedding(tmp_path, 0)).max() > 0


def test_training_reports_the_task_s_own_metrics(pretrained):
    rows = metrics(pretrained, "openmoji_captions")
    assert [row["step"] for row in rows] == [2, 4]
    assert all({"exact_match", "cider", "distinct_ratio"} <= set(row) for row in rows)
    assert (pretrained / "training_eval" / "openmoji_captions").is_dir()


def test_no_log_holds_an_image(pretrained):
    files = sorted((pretrained / "inference_eval").glob("openmoji_captions-0*.jsonl"))
    assert files
    for line in files[0].read_text().splitlines():
        assert "image" not in json.loads(line)["input"]
        assert "iVBOR" not in line  # how PNG begins in base 64


def test_a_stopped_run_goes_on_where_it_was(data, pretrained, tmp_path):
    """Two steps and then two more are four, to the last bit: state, data and dropout."""
    folder = tmp_path / "stopped"
    engine.pretrain(data, folder, 2)
    engine.pretrain(data, folder, 4)
    left, right = restore_params(folder, 4), restore_params(pretrained, 4)
    for name in ("token_embedding", "image_positions", "text_positions"):
        np.testing.assert_array_equal(left[name], right[name])
    assert engine.steps(folder) == [0, 2, 4]


def test_finetuning_starts_from_the_parameters_alone(data, pretrained, tmp_path):
    start = f"INITIAL_CHECKPOINT_PATH = '{pretrained}/checkpoint_4'"
    bindings = [f"MODEL_DIR = '{tmp_path}'", "TOTAL_STEPS = 2", start]
    bindings += ["PAIRS = {'openmoji_en_de': 8}", "EVAL_TASK = 'openmoji_en_de'"]
    engine.t5x("train", data, ["t5x/finetune.gin"], bindings)
    assert engine.steps(tmp_path) == [0, 2]  # the step began anew, and with it the schedule
    np.testing.assert_array_equal(embedding(tmp_path, 0), embedding(pretrained, 4))
    assert np.abs(embedding(tmp_path, 2) - embedding(tmp_path, 0)).max() > 0
    assert {"chrf", "exact_match"} <= set(metrics(tmp_path, "openmoji_en_de")[-1])


@pytest.mark.parametrize("devices", [1, 8])
def test_eval_reports_the_task_s_metrics(data, pretrained, tmp_path, devices):
    bindings = [
        f"CHECKPOINT_PATH = '{pretrained}/checkpoint_4'",
        f"EVAL_OUTPUT_DIR = '{tmp_path}'",
        "EVAL_TASK = 'openmoji_captions'",
        "EVAL_SPLIT = 'concepts'",
        f"EVAL_LENGTHS = {engine.LENGTHS}",
    ]
    bindings += engine.MESH_2X4 * (devices == 8)
    engine.t5x("eval", data, ["t5x/eval.gin"], bindings, devices)
    (row,) = metrics(tmp_path, "openmoji_captions")
    assert row["step"] == 4 and "cider" in row


def infer(data, pretrained, output, mode, devices=1):
    own = [
        f"CHECKPOINT_PATH = '{pretrained}/checkpoint_4'",
        f"INFER_OUTPUT_DIR = '{output}'",
        "INFER_TASK = 'openmoji_captions'",
        "INFER_SPLIT = 'variants'",
        f"INFER_LENGTHS = {engine.LENGTHS}",
        f"INFER_MODE = '{mode}'",
    ]
    own += engine.MESH_2X4 * (devices == 8)
    engine.t5x("infer", data, ["t5x/infer.gin"], own, devices)
    (path,) = output.glob("*.jsonl-00000-of-00001")
    assert b"iVBOR" not in path.read_bytes() and b"PNG" not in path.read_bytes()
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_infer_predicts_what_simvlm_caption_says(data, pretrained, tmp_path):
    import seqio
    from simvlm_jax.tasks import openmoji  # noqa: F401

    from simvlm_jax.cli.main import main

    rows = infer(data, pretrained, tmp_path / "predict", "predict")
    with_scores = infer(data, pretrained, tmp_path / "aux", "predict_with_aux")
    assert [row["prediction"] for row in with_scores] == [row["prediction"] for row in rows]
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("SIMVLM_DATA_DIR", str(data))
        task = seqio.TaskRegistry.get("openmoji_captions")
        examples = task.get_dataset(None, "variants", shuffle=False).as_numpy_iterator()
        for number, example in enumerate(examples):
            (pictures / f"{number:03}.png").write_bytes(example["image"][0])
    captions = tmp_path / "captions.jsonl"
    flags = [f"--model_dir={pretrained}", f"--output={captions}", "--max_length=24"]
    assert main(["caption", *flags, str(pictures)]) == 0
    ours = [json.loads(line) for line in captions.read_text().splitlines()]
    assert [row["caption"] for row in ours] == [row["prediction"] for row in rows]
    np.testing.assert_allclose(
        [row["score"] for row in ours],
        [row["aux"]["scores"] for row in with_scores],
        rtol=1e-3,
    )


def test_infer_scores_the_targets(data, pretrained, tmp_path):
    one = infer(data, pretrained, tmp_path / "one", "score")
    eight = infer(data, pretrained, tmp_path / "eight", "score", devices=8)
    assert len(one) == 7 and all(row["score"] < 0 for row in one)
    scores = [[row["score"] for row in rows] for rows in (one, eight)]
    np.testing.assert_allclose(*scores, rtol=1e-4)


def test_a_copied_folder_is_all_that_captioning_needs(pretrained, tmp_path):
    from simvlm_jax.captioner import Captioner

    for name in ("model_config.json", "vocabulary.model", "checkpoint_4"):
        source = pretrained / name
        copy = shutil.copytree if source.is_dir() else shutil.copy
        copy(source, tmp_path / name)
    images = np.zeros((1, 32, 32, 3), np.float32)
    assert len(Captioner.load(tmp_path).caption(images, "a picture of")) == 1
