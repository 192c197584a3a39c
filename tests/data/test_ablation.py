import json
import shutil

import pytest
import tensorflow as tf

from simvlm_jax.data import ablation
from simvlm_jax.data.paths import shard_paths
from simvlm_jax.data.sources.array_record import ArrayRecords
from simvlm_jax.data.summary import is_data_set
from simvlm_jax.errors import UserError


@pytest.fixture(scope="module")
def folder(made_data, tmp_path_factory):
    folder = shutil.copytree(made_data, tmp_path_factory.mktemp("ablation") / "data")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SIMVLM_DATA_DIR", str(folder))
        ablation.write_ablation(seed=5)
    return folder


def records(folder, name, split):
    found = ArrayRecords([str(path) for path in shard_paths(folder / name, split)])
    fields = [
        tf.train.Example.FromString(r).features.feature for r in found.read(range(len(found)))
    ]
    return [
        {
            name: (value.bytes_list.value or value.int64_list.value)[0]
            for name, value in field.items()
        }
        for field in fields
    ]


def images(folder, name, split="train"):
    return {record["image/encoded"] for record in records(folder, name, split)}


def test_no_drawing_is_on_two_sides(folder):
    pretraining = images(folder, "ablation/noisy")
    training = images(folder, "ablation/questions")
    test = images(folder, "ablation/questions", "test")
    assert len(pretraining) == 22 and len(training) == 7
    assert pretraining | training == images(folder, "openmoji")
    assert test == images(folder, "openmoji", "variants") | images(folder, "openmoji", "concepts")
    assert not pretraining & training and not (pretraining | training) & test


def test_the_tenth_is_as_noisy_and_the_clean_set_is_right(folder):
    def captions(name):
        return {r["image/encoded"]: r["caption"] for r in records(folder, name, "train")}

    right = {r["image/encoded"]: r["caption/en"] for r in records(folder, "openmoji", "train")}
    noisy, tenth, clean = (captions(f"ablation/{name}") for name in ablation.PAIR_SETS)
    assert (len(tenth), len(clean)) == (2, 1)
    assert tenth.items() <= noisy.items() and clean.items() <= right.items()
    assert sum(noisy[key] != right[key] for key in noisy) == 6
    assert set(clean) <= set(tenth)


def test_records_have_ids_and_answers_are_classes(folder):
    classes = (folder / "ablation/questions/answers.txt").read_text().splitlines()
    found = records(folder, "ablation/questions", "train")
    assert [record["id"] for record in found] == list(range(len(found)))
    assert {record["answer"].decode() for record in found} == set(classes)
    kinds = {record["kind"] for record in records(folder, "ablation/questions", "test")}
    assert {b"name", b"kind", b"yes_no", b"colour"} == kinds


def test_the_summary_counts_and_the_demo_s_command_knows_the_folder(folder):
    summary = json.loads((folder / "ablation" / ablation.SUMMARY).read_text())
    assert summary["counts"]["noisy"] == 22 and summary["settings"] == {"seed": 5}
    assert len(summary["files"]) == 6 and is_data_set(folder / "ablation")


def test_equal_seeds_give_equal_files(folder, monkeypatch):
    monkeypatch.setenv("SIMVLM_DATA_DIR", str(folder))
    before = json.loads((folder / "ablation" / ablation.SUMMARY).read_text())["files"]
    assert ablation.write_ablation(seed=5)["files"] == before
    other = ablation.write_ablation(seed=6)["files"]
    assert other["noisy/train-00000-of-00001.array_record"] not in before.values()


def test_too_few_drawings_are_a_sentence(folder, monkeypatch):
    monkeypatch.setenv("SIMVLM_DATA_DIR", str(folder))
    monkeypatch.setattr(ablation, "FEWEST", 30)
    with pytest.raises(UserError, match="needs 30 drawings in training .* has 29"):
        ablation.write_ablation(seed=0)
