import ast
import subprocess
import sys

import numpy as np
import pytest
import seqio
import simvlm_jax.tasks  # noqa: F401  registers the tasks

from simvlm_jax.data.features import SimVLMFeatureConverter
from simvlm_jax.data.vocabulary import default_vocabulary

TEXT = {"example_seed": 2, "inputs": 24, "targets": 28}
PAIR = {**TEXT, "image": 1}
OBJECTIVES = ("prefix_lm", "span_corruption", "lm")
OPENMOJI = [f"openmoji_{name}" for name in (*OBJECTIVES, "captions", "en_de")]
QUALITIES = ("noisy", "tenth", "clean")
ABLATION = [f"ablation_{quality}_{name}" for quality in QUALITIES for name in OBJECTIVES]
ABLATION.append("ablation_questions")
TEXT_ONLY = ["openmoji_en_de_text", *(f"documents_{name}" for name in OBJECTIVES)]


def examples(name, split="train", lengths=None):
    task = seqio.TaskRegistry.get(name)
    return list(task.get_dataset(lengths, split, shuffle=False).as_numpy_iterator())


@pytest.mark.parametrize("name", OPENMOJI + TEXT_ONLY)
def test_plain_seqio_reads_every_task(data_folder, name):
    lengths = TEXT if name in TEXT_ONLY else PAIR
    dataset = seqio.get_dataset(
        name,
        lengths,
        SimVLMFeatureConverter(image_size=(8, 8)),
        shuffle=True,
        seed=1,
        verbose=False,
    )
    count = 0
    for batch in dataset.as_numpy_iterator():
        assert ("image" in batch) == (name not in TEXT_ONLY)
        assert batch["decoder_loss_weights"].any()
        count += 1
    assert count == (11 if name.startswith("documents") else 29)


def test_pretraining_reads_the_prompt_and_the_caption_as_one_text(data_folder):
    vocabulary = default_vocabulary()
    for example in examples("openmoji_prefix_lm"):
        text = f"a picture of {example['caption/en'].decode()}"
        assert example["targets_pretokenized"].decode() == text
        joined = [*example["inputs"], *example["targets"]]
        assert joined == [*vocabulary.encode(text), vocabulary.eos_id]


def test_captioning_s_prompt_is_a_prefix_of_pretraining_s_text(data_folder):
    vocabulary = default_vocabulary()
    for example in examples("openmoji_captions"):
        joined = [*example["inputs"], *example["targets"]]
        text = f"a picture of {example['caption/en'].decode()}"
        assert joined == [*vocabulary.encode(text), vocabulary.eos_id]
        assert vocabulary.decode(example["inputs"].tolist()) == "a picture of"


def test_translation_is_the_same_with_and_without_the_image(data_folder):
    pairs = zip(examples("openmoji_en_de"), examples("openmoji_en_de_text"), strict=True)
    for with_image, without in pairs:
        for name in ("inputs", "targets"):
            np.testing.assert_array_equal(with_image[name], without[name])
        assert "image" in with_image and "image" not in without
        assert with_image["inputs_pretokenized"] == with_image["caption/en"]
        assert with_image["targets_pretokenized"] == with_image["caption/de"]


def test_evaluation_is_not_augmented_and_keeps_no_decoded_image(data_folder):
    for example in examples("openmoji_captions", "variants"):
        assert example["example_seed"].tolist() == [0, 0]
        assert example["image"].shape == (1,) and example["image"][0].startswith(b"\x89PNG")
        assert not [name for name in example if "image" in name and name != "image"]


def test_tasks_of_one_source_can_be_mixed(data_folder):
    seqio.MixtureRegistry.add("mixed", [("openmoji_captions", 1.0), ("openmoji_en_de", 1.0)])
    mixture = seqio.MixtureRegistry.get("mixed")
    dataset = mixture.get_dataset(PAIR, "train", shuffle=False, num_epochs=1)
    assert len(list(dataset.take(5))) == 5
    seqio.MixtureRegistry.remove("mixed")


def test_registration_reads_no_file(tmp_path):
    code = "import simvlm_jax.tasks, seqio; print(sorted(seqio.TaskRegistry.names()))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={"SIMVLM_DATA_DIR": str(tmp_path / "absent"), "PATH": ""},
    )
    names = ast.literal_eval(done.stdout.strip())
    ours = ("ablation", "documents", "openmoji")  # others are told of in test_benchmarks.py
    assert [name for name in names if name.startswith(ours)] == sorted(
        ABLATION + OPENMOJI + TEXT_ONLY
    )
