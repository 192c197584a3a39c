"""What seqio offers on a task works on ours: lookup, mixtures, Evaluator, its test helpers."""

import io

import numpy as np
import pytest
import seqio
import simvlm_jax.tasks  # noqa: F401  registers the tasks
import tensorflow as tf
from PIL import Image
from seqio import test_utils

from simvlm_jax.data.features import SimVLMFeatureConverter

LENGTHS = {"image": 1, "example_seed": 2, "inputs": 24, "targets": 28}
SCORED = {"openmoji_captions": "cider", "openmoji_en_de": "chrf"}


@pytest.fixture
def converter(data_folder):
    return SimVLMFeatureConverter(image_size=(8, 8))


def record():
    buffer = io.BytesIO()
    Image.new("RGB", (9, 9), (255, 0, 0)).save(buffer, "PNG")
    return {
        "id": np.int64(5),
        "image/encoded": buffer.getvalue(),
        "caption/en": b"red square",
        "caption/de": b"Quadrat rot",
        "group": b"symbol",
        "codepoints": b"1F7E5",
        "concept": b"1F7E5",
    }


@pytest.mark.parametrize("name", [n for n in seqio.TaskRegistry.names() if "openmoji" in n])
def test_seqio_s_own_helper_preprocesses_a_record_of_every_task(data_folder, name):
    task = seqio.get_mixture_or_task(name)
    output = test_utils.test_preprocessing_single(name, {"train": record()})
    assert set(task.output_features) <= set(output)
    assert output["targets"][-1] == task.output_features["targets"].vocabulary.eos_id


@pytest.mark.parametrize("name", SCORED)
def test_a_perfect_prediction_is_perfect_by_the_task_s_metrics(data_folder, name):
    (metric,) = seqio.get_mixture_or_task(name).metric_fns
    found = metric(["red square", "blue"], ["red square", "blue"])
    assert found["exact_match"] == 1.0 and found[SCORED[name]] > 2
    assert metric(["red square", "blue"], ["blue", "blue"])["exact_match"] == 0.5


def test_the_evaluator_caches_encoded_images_and_pairs_each_prediction_with_its_target(converter):
    evaluator = seqio.Evaluator(
        "openmoji_captions", converter, eval_split="variants", sequence_length=LENGTHS
    )
    (task,) = evaluator.eval_tasks
    cached = evaluator.cached_task_datasets[task.name]
    assert cached.element_spec["image"].dtype == tf.string
    answers = [example["targets"] for example in cached.as_numpy_iterator()]

    def predict(dataset):
        wrong = {0: answers[1]}
        return [(i, list(wrong.get(int(i), answers[i]))) for i, _ in dataset.as_numpy_iterator()]

    metrics, _ = evaluator.evaluate(compute_metrics=True, predict_fn=predict)
    found = metrics.result()["openmoji_captions"]["exact_match"]
    assert found == pytest.approx((len(answers) - 1) / len(answers))
    evaluator.close()


def test_a_mixture_gives_examples_of_all_its_tasks(converter):
    name = "openmoji_captions_and_german"
    if name not in seqio.MixtureRegistry.names():
        seqio.MixtureRegistry.add(name, [("openmoji_captions", 1), ("openmoji_en_de", 1)])
    assert {t.name for t in seqio.get_mixture_or_task(name).tasks} == set(SCORED)
    dataset = seqio.get_dataset(name, LENGTHS, converter, shuffle=False, num_epochs=None, seed=0)
    prompts = {
        tuple(example["encoder_input_tokens"]) for example in dataset.take(40).as_numpy_iterator()
    }
    assert len(prompts) > 2  # one prompt for captions, English words for German
