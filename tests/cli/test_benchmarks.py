"""The paper's benchmarks end to end, from tiny files in the official formats."""

import json
import math

import jax
import pytest

from benchmark_makers.make import make_all_tiny
from cli.test_verbs import SMALL, bindings
from simvlm_jax.cli.main import main
from simvlm_jax.data.testing_records import make_data

TINY = [line for line in SMALL if "TOTAL_STEPS" not in line]
TINY += ["config.SimVLMConfig.scan_layers = False"]
TRAIN = [*TINY, "TOTAL_STEPS = 2", "CHECKPOINT_PERIOD = 1", "loop.train.tensorboard = False"]


@pytest.fixture(scope="module")
def ready(tmp_path_factory):
    """A data folder with every benchmark, and a pretrained run."""
    root = tmp_path_factory.mktemp("benchmarks")
    data, run = make_data(root / "data"), root / "pretrained"
    make_all_tiny(data)
    monkeypatch = pytest.MonkeyPatch()
    monkeypatch.setenv("SIMVLM_DATA_DIR", str(data))
    jax.config.update("jax_disable_most_optimizations", True)  # in a hurry: nothing runs for long
    assert main(["prepare", "answers", "--least=2"]) == 0
    # Fewer, so that some questions lie outside of the classes.
    (data / "vqa_v2" / "answers.txt").write_text("circle\nred\n2\ngrey\nblue\n")
    command = ["train", "--gin_file=runs/demo.gin", f"--model_dir={run}"]
    assert main([*command, *bindings(*TINY, "TOTAL_STEPS = 1")]) == 0
    yield data, run, root
    jax.config.update("jax_disable_most_optimizations", False)
    monkeypatch.undo()


def finetune(ready, name, *lines):
    data, run, root = ready
    if name in ("vqa_v2", "own_vqa"):
        answers = (data / name / "answers.txt").read_text().split("\n")[:-1]
        lines = [*lines, f"CLASSES = {len(answers)}"]
    elif name == "imagenet":
        lines = [*lines, f"CLASSES = {len(list((data / name / 'train').iterdir()))}"]
    folder = root / name
    command = ["finetune", "--gin_file=models/tiny.gin", f"--gin_file=finetune/{name}.gin"]
    command += [f"--pretrained={run}", f"--model_dir={folder}"]
    assert main([*command, *bindings(*TRAIN, *lines)]) == 0
    return folder


def evaluate(folder, name):
    command = ["evaluate", f"--gin_file=evaluate/{name}.gin", f"--model_dir={folder}"]
    assert main(command) == 0
    return json.loads((folder / "metrics.json").read_text())


CASES = {  # finetuned on: {evaluation: {section: metrics that it must have}}
    "vqa_v2": {
        "vqa_v2": {
            "val": ["accuracy", "accuracy_shuffled", "accuracy_masked", "accuracy_most_frequent"],
            "test_dev": [],
            "test_std": [],
        }
    },
    "vqa_v2_generate": {
        "vqa_v2_generate": {
            "karpathy_test": ["accuracy", "accuracy_masked"],
            "karpathy_test_out": ["accuracy"],
        }
    },
    "snli_ve_text": {"snli_ve": {"dev": ["accuracy", "accuracy_masked"], "test": ["accuracy"]}},
    "nlvr2": {"nlvr2": {name: ["accuracy", "consistency"] for name in ("dev", "test_p")}},
    "coco_captions": {
        "coco_captions": {"test": ["cider", "bleu_4", "rouge_l", "cider_shuffled"]},
        "nocaps": {"val": ["cider", "cider_near_domain"], "test": []},
    },
    "multi30k_en_de": {
        "multi30k_en_de": {"test_2016_flickr": ["bleu", "chrf", "chrf_without_image"]},
        "multi30k_image_de": {"test_2017_mscoco": ["bleu_shuffled"]},
    },
    "imagenet": {"imagenet": {"val": ["accuracy", "most_frequent_share"]}},
    "glue_mrpc": {"glue_mrpc": {"dev": ["accuracy", "f1", "f1_most_frequent"]}},
    "own_vqa": {"own_vqa": {"validation": ["accuracy", "accuracy_shuffled"]}},
}


@pytest.mark.parametrize("name", CASES)
def test_a_benchmark_runs_from_its_official_files(ready, name):
    folder = finetune(ready, name)
    for evaluation, sections in CASES[name].items():
        metrics = evaluate(folder, evaluation)
        for section, keys in sections.items():
            assert metrics[section]["examples"] > 0
            for key in keys:
                assert math.isfinite(metrics[section][key]), (section, key)
            lines = (folder / "answers" / f"{section}.jsonl").read_text().split("\n")[:-1]
            assert len(lines) == metrics[section]["examples"]
        assert metrics["made_with"]["configuration"].count("TaskEvaluation")
        assert metrics["made_with"]["checkpoints"][section]["step"] == 2
    for section, id_name in (("test_dev", "question_id"), ("test", "image_id")):
        if (file := folder / "submissions" / f"{section}.json").exists():
            entries = json.loads(file.read_text())
            assert entries and id_name in entries[0]
    submitted = {"vqa_v2": {"test_dev", "test_std"}, "coco_captions": {"test"}}.get(name, set())
    assert {path.stem for path in (folder / "submissions").glob("*")} == submitted
