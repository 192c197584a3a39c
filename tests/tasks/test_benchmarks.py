"""Every benchmark's tasks over tiny files in exactly its official format."""

import functools
import json

import numpy as np
import pytest
import seqio
import simvlm_jax.tasks  # noqa: F401  registers the tasks
import tensorflow as tf

from benchmark_makers import make
from simvlm_jax.data.pillow_images import load_image
from simvlm_jax.data.plain import evaluation_examples, get_task, plain_batches
from simvlm_jax.data.sources import Unreadable
from simvlm_jax.data.sources.examples import fault_of
from simvlm_jax.data.streams import GroupStream
from simvlm_jax.data.task_examples import TaskExamples
from simvlm_jax.data.testing_records import make_data
from simvlm_jax.data.vocabulary import default_vocabulary
from simvlm_jax.errors import UserError

OURS = ("ablation", "documents", "openmoji")
NAMES = sorted(n for n in seqio.TaskRegistry.names() if not n.startswith(OURS))
ODD = "Ein  Café\u2028☃ 😀 \u200b"


@pytest.fixture(scope="module")
def made_benchmarks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("benchmarks")
    make.make_all_tiny(folder)
    (folder / "vqa_v2" / "answers.txt").write_text("circle\nred\n2\ngrey\nblue\n")
    return make_data(folder)


@pytest.fixture
def folder(made_benchmarks, monkeypatch):
    monkeypatch.setenv("SIMVLM_DATA_DIR", str(made_benchmarks))
    monkeypatch.setenv("SIMVLM_CACHE_DIR", str(made_benchmarks / "cache"))
    return made_benchmarks


def lengths_of(name):
    features = get_task(name).output_features
    lengths = {"inputs": 24, "targets": 24} | {n: 1 for n in features if n.endswith("image")}
    lengths |= {"example_seed": 2} if "image" in features else {}
    return lengths | {n: f.count for n, f in features.items() if n.startswith("label")}


@functools.cache
def examples_of(name, split):
    return evaluation_examples(name, split)


def fields(name, split, *wanted):
    return [tuple(e[field] for field in wanted) for e in examples_of(name, split)]


def test_the_paper_s_benchmarks_are_registered():
    wanted = "coco_captions glue_cola glue_mnli glue_mrpc glue_qnli glue_qqp glue_rte glue_sst2 "
    wanted += "glue_wnli imagenet mnli multi30k_en_de multi30k_en_de_text multi30k_en_fr "
    wanted += "multi30k_en_fr_text multi30k_image_de multi30k_image_fr nlvr2 nocaps own_captions "
    wanted += "own_vqa snli snli_ve snli_ve_text vqa_v2 vqa_v2_generate"
    assert NAMES == wanted.split()


# Of what cannot be used: how many records, by task and split.
FAULTS = {
    ("glue_qqp", "train"): 1,
    ("own_captions", "train"): 3,
    ("own_captions", "validation"): 1,
    ("own_captions", "test"): 1,
    ("own_vqa", "train"): 1,
    ("own_vqa", "validation"): 1,
    ("own_vqa", "test"): 1,
    ("nlvr2", "train"): 2,
    ("coco_captions", "test"): 1,
    **{("snli_ve", split): 3 for split in ("train", "dev", "test")},
    **{(f"multi30k_{kind}", "test_2017_mscoco"): 1 for kind in ("en_de", "en_fr", "image_de")},
    ("multi30k_image_fr", "test_2017_mscoco"): 1,
    **{
        (name, split): 2
        for name in ("vqa_v2", "vqa_v2_generate")
        for split in ("train", "trainval", "karpathy_val")
    },
}


@pytest.mark.parametrize("name", NAMES)
def test_every_split_is_read_whole(folder, name):
    source = get_task(name).source
    for split in source.splits:
        records = source.random_access(split)
        assert len(records) or split == "karpathy_test_out"
        found = records.read(range(len(records)))
        bad = [record for record in found if isinstance(record, Unreadable)]
        assert len(bad) == FAULTS.get((name, split), 0), (split, bad)
        assert all(fault_of(r, source._features) is None for r in found if r not in bad)
        # In evaluation a missing image leaves ids and texts.
        kept = source.in_order(split).read(range(len(records)))
        texts = [r for r in kept if not isinstance(r, Unreadable)]
        assert len(texts) == len(kept) - sum(
            "image" not in r.cause or "line" in r.cause for r in bad
        )


@pytest.mark.parametrize("name", ["coco_captions", "glue_rte", "nlvr2", "vqa_v2"])
def test_training_streams_over_benchmarks(folder, name):
    lengths = lengths_of(name)
    pairs, documents = ({name: 2}, {}) if "image" in lengths else ({}, {name: 2})
    stream = GroupStream(pairs, documents, 2, lengths, lengths, (8, 8), 0)
    batches = stream.batches()
    batch = next(batches)
    assert {n: a.shape for n, a in batch.items()} == stream.input_shapes
    batches.close()


def test_captions_have_all_references_and_official_ids(folder):
    train = examples_of("coco_captions", "train")
    assert [e["image_id"] for e in train] == [100, 101, 105, 106]
    assert train[0]["references"] == ["A red circle.", "circle in red"]
    for example in train:
        assert example["targets_pretokenized"] in example["references"]
        assert example["inputs_pretokenized"] == "a picture of"
    assert fields("coco_captions", "test", "image_id") == [(103,), (104,)]
    drawn = get_task("nocaps").source.random_access("val")
    assert fields("nocaps", "val", "image_id", "domain")[:3] == [
        (0, "in-domain"), (1, "near-domain"), (2, "out-domain"),
    ]  # fmt: skip
    assert [len(r) for (r,) in fields("nocaps", "val", "references")] == [1, 2, 3, 1]
    assert fields("nocaps", "val", "references")[0][0] == [f"a drawing of {ODD}"]
    assert fields("nocaps", "test", "references", "domain") == [([], "")] * 3
    assert drawn.name(0)[1] == "0 val/0000000000000000.jpg"


def test_another_caption_is_learnt_in_another_epoch(folder):
    examples = TaskExamples("coco_captions", "train", lengths_of("coco_captions"), (8, 8), 0)
    seen = set()
    for epoch in range(12):
        into = {n: np.zeros((1, *s), d) for n, (s, d) in examples.features().items()}
        examples.read(np.zeros(1, np.int64), np.array([epoch]), into)
        seen.add(default_vocabulary().decode(into["decoder_target_tokens"][0].tolist()))
    assert len(seen) == 2


MISSING = [
    ("snli_ve", "dev", 6, "flickr30k_images/4705552915.jpg"),
    ("nlvr2", "train", 4, "train/2/train-189-2-img1.png"),
    ("multi30k_en_de", "test_2017_mscoco", 3, "val2014/COCO_val2014_000000000003.jpg"),
    ("own_captions", "test", 5, "own_captions/images/test-5.png"),
    ("vqa_v2", "train", 6, "train2014/COCO_train2014_000000000005.jpg"),
]


@pytest.mark.parametrize(("name", "split", "place", "where"), MISSING)
def test_a_missing_image_keeps_its_place(folder, name, split, place, where):
    records = get_task(name).source.random_access(split)
    assert records.read([place]) == [Unreadable("there is no such image file")]
    assert where in records.name(place)[1] and records.name(place)[1].startswith(f"{place} ")


def test_a_missing_image_is_black_in_evaluation_and_counts_nothing(folder):
    ((plain, count),) = plain_batches("snli_ve", "dev", lengths_of("snli_ve"), (8, 8), 16)
    assert count == len(examples_of("snli_ve", "dev")) == 12
    wanted = [place not in (6, 7, 8) for place in range(12)]
    assert plain["label_scores"][:count, 0].tolist() == wanted
    assert plain["image"][:count].any(axis=(1, 2, 3)).tolist() == wanted
    assert [label for (label,) in fields("snli_ve", "dev", "label")] == [0, 1, 2] * 4


def test_vqa_v2_has_soft_scores_and_karpathy_s_splits(folder):
    train = examples_of("vqa_v2", "train")
    by_id = {example["question_id"]: example for example in train}
    red, many = by_id[0], by_id[99]
    assert red["answers"] == ["red"] * 7 + ["Grey"] * 3 and red["image_id"] == 0
    assert red["labels"][:3] == [1, 3, -1]
    assert red["label_scores"][:3] == pytest.approx([1, 0.9, 0])
    assert many["labels"][:2] == [2, -1] and many["label_scores"][0] == pytest.approx(0.9)
    assert many["answer_type"] == "number"
    tied = by_id[1]  # five "a circle" beside five "the dots."
    assert tied["labels"][:2] == [0, -1] and tied["label_scores"][0] == 1
    assert fields("vqa_v2", "test_dev", "answers", "labels") == [([], [-1] * 10)] * 3
    source, ids = get_task("vqa_v2").source, {}
    for split in source.splits:
        records = source.in_order(split)
        parsed = [tf.train.Example.FromString(r) for r in records.read(range(len(records)))]
        numbers = [e.features.feature["question_id"].int64_list.value[0] for e in parsed]
        ids[split] = set(numbers)
        assert len(ids[split]) == len(numbers)
    assert len(ids["test_std"]) == 12 and ids["test_dev"] < ids["test_std"]
    assert ids["trainval"] == ids["train"] | ids["val"]
    parts = [ids[f"karpathy_{split}"] for split in ("train", "val", "test")]
    assert set.union(*parts) == ids["trainval"] and sum(map(len, parts)) == len(ids["trainval"])
    inside, outside = ids["karpathy_test_in"], ids["karpathy_test_out"]
    assert inside | outside == ids["karpathy_test"] and not inside & outside
    assert ids["partial_train"] < ids["karpathy_train"]


def test_vqa_v2_puts_the_question_where_the_task_says(folder):
    vocabulary = default_vocabulary()
    ((batch, count),) = plain_batches("vqa_v2", "train", lengths_of("vqa_v2"), (8, 8), 25)
    questions = [q for (q,) in fields("vqa_v2", "train", "question")]
    for row, question in zip(batch["decoder_input_tokens"][:count], questions, strict=True):
        tokens = vocabulary.encode(question)[:23]
        assert row.tolist() == [0, *tokens, *[0] * (23 - len(tokens))]
    assert not batch["encoder_input_tokens"].any()
    path = folder / "vqa_v2/train2014/COCO_train2014_000000000000.jpg"
    np.testing.assert_array_equal(batch["image"][0], load_image(str(path), (8, 8)))
    for example in examples_of("vqa_v2_generate", "train"):
        assert example["inputs_pretokenized"] == example["question"]
        assert example["targets_pretokenized"] in example["answers"]


def test_nlvr2_s_images_are_left_and_right(folder):
    ((batch, _),) = plain_batches("nlvr2", "dev", lengths_of("nlvr2"), (8, 8), 6)
    for feature, number in (("image", 0), ("second_image", 1)):
        path = folder / f"nlvr2/dev/dev-189-1-img{number}.png"
        np.testing.assert_array_equal(batch[feature][2], load_image(str(path), (8, 8)))
    assert fields("nlvr2", "test_u", "identifier", "sentence_id", "label")[:2] == [
        ("test2-189-0-0", "test2-189--0", 1), ("test2-189-0-1", "test2-189--1", 1),
    ]  # fmt: skip


def test_entailment_has_one_set_of_classes(folder):
    wanted = [(0, "It is red."), (1, f"It is Anna's. {ODD}"), (2, "It is purple.")]
    assert fields("snli_ve", "test", "label", "targets_pretokenized")[:3] == wanted
    assert fields("snli_ve_text", "test", "inputs_pretokenized")[0] == ("A red circle.",)
    assert fields("snli_ve", "test", "inputs_pretokenized", "image_id")[0] == ("", "4705552913")
    assert [n for (n,) in fields("snli", "dev", "label")] == [0, 1, 2, -1, 1]
    assert fields("mnli", "dev_mismatched", "label", "inputs_pretokenized")[2][0] == 2


def test_glue_s_tables_are_read_with_their_quirks(folder):
    first = "inputs_pretokenized", "targets_pretokenized", "label", "index"
    assert fields("glue_rte", "dev", *first)[0] == ('He said "no.', "It's 5\" long", 0, 0)
    assert fields("glue_qnli", "train", "label") == [(1,), (0,), (1,)]
    assert fields("glue_mrpc", "dev", *first)[1][1:] == ("b", 1, 1)
    assert fields("glue_cola", "dev", *first)[1] == ("Them drank ☃ .", "", 1, 1)
    assert fields("glue_cola", "test", *first)[2] == ("Who did?", "", -1, 2)
    assert fields("glue_mnli", "dev_matched", "label") == [(1,), (2,), (1,)]
    records = get_task("glue_qqp").source.random_access("train")
    assert len(records) == 4
    assert records.read([3])[0].cause == "the row has another number of columns than the header"


def test_multi30k_s_lines_lie_beside_one_another(folder):
    text = "inputs_pretokenized", "targets_pretokenized", "image_id"
    assert fields("multi30k_en_de", "val", *text)[:1] == [
        ("A red circle.", "Ein roter Kreis.", "1000.jpg")
    ]
    assert [t for (t,) in fields("multi30k_en_de", "train", "de")][2:] == ["", ODD.strip()]
    assert fields("multi30k_image_fr", "train", *text[:2])[0] == ("", "Un cercle rouge.")
    (path,) = [
        p for p in (folder / "multi30k/data/task1/image_splits").iterdir() if "2016" in p.name
    ]
    before = path.read_text()
    path.write_text(before + "another.jpg\n")
    with pytest.raises(UserError, match="line 5 is not in each of them"):
        evaluation_examples("multi30k_en_de", "test_2016_flickr")
    path.write_text(before)
    assert len(evaluation_examples("multi30k_en_de", "test_2016_flickr")) == 4


def test_imagenet_s_classes_are_those_of_train(folder):
    assert fields("imagenet", "val", "label", "class_name") == [
        (0, "n01440760"), (1, "n01440761"),
    ]  # fmt: skip
    strange = folder / "imagenet/val/n2"
    strange.mkdir()
    with pytest.raises(UserError, match="has a class 'n2'"):
        evaluation_examples("imagenet", "val")
    strange.rmdir()


def test_your_own_lines(folder):
    assert fields("own_captions", "validation", "references")[:2] == [
        (["a red circle"],), (["a red square", "square, red"],),
    ]  # fmt: skip
    labels = fields("own_vqa", "test", "labels", "label_scores", "answer")
    assert labels[0][0][:2] == [0, -1] and labels[0][1][0] == 1 and labels[0][2] == "red"
    assert labels[1][0][:2] == [0, -1] and 0 < labels[1][1][0] < 1
    records = get_task("own_captions").source.random_access("train")
    causes = [records.read([place])[0].cause for place in (8, 9)]
    assert causes == ["the line has not image and caption", "the line is not JSON"]


def test_what_is_not_there_is_told_by_name(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("SIMVLM_DATA_DIR", str(tmp_path))
    with pytest.raises(UserError, match="nlvr2/dev.json, which is not there"):
        get_task("nlvr2").source.random_access("dev")
    (tmp_path / "nlvr2").mkdir()
    line = json.dumps({"identifier": "dev-1-2-0", "sentence": "a", "label": "True"})
    (tmp_path / "nlvr2" / "dev.json").write_text(line + "\n")
    with pytest.raises(UserError, match="there is no such folder"):
        get_task("nlvr2").source.random_access("dev")
    with pytest.raises(UserError, match="no split 'test'"):
        get_task("nlvr2").source.random_access("test")
