"""What all sources of other people's formats do alike: in a plain task and in the stream."""

import copy
import csv
import functools
import json
import pickle
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pytest
import seqio
import tensorflow as tf
import tensorflow_datasets as tfds
from pyarrow import parquet as pq

from simvlm_jax.data import sources
from simvlm_jax.data.features import task_features
from simvlm_jax.data.prefix import prefix_lm
from simvlm_jax.data.preprocessors import from_record
from simvlm_jax.data.streams import GroupStream
from simvlm_jax.data.testing_records import draw
from simvlm_jax.data.vocabulary import default_vocabulary
from simvlm_jax.errors import UserError

STRING = tf.io.FixedLenFeature([], tf.string)
PAIR = {"image/encoded": STRING, "caption": STRING}
COLOURS = ["red", "green", "blue", "yellow", "black"]
CAPTIONS = [f"{colour} circle: left" for colour in COLOURS]
IMAGES = [draw(colour, "circle", "left") for colour in COLOURS]


def write_images(folder):
    (folder / "images").mkdir()
    for colour, image in zip(COLOURS, IMAGES, strict=True):
        (folder / "images" / f"{colour}.png").write_bytes(image)
    return [f"images/{colour}.png" for colour in COLOURS]


def json_lines(folder):
    rows = zip(write_images(folder), CAPTIONS, strict=True)
    lines = [json.dumps({"image": name, "caption": caption}) for name, caption in rows]
    (folder / "a.jsonl").write_text("\n".join(lines))
    return sources.JSONLinesSource("x", {"train": f"{folder}/a.jsonl"}, PAIR)


def table(folder):
    with open(folder / "a.csv", "w", newline="") as file:
        rows = [("image", "caption"), *zip(write_images(folder), CAPTIONS, strict=True)]
        csv.writer(file).writerows(rows)
    return sources.CSVSource("x", {"train": f"{folder}/a.csv"}, PAIR)


def images_and_texts(folder):
    for name, caption in zip(write_images(folder), CAPTIONS, strict=True):
        (folder / name).with_suffix(".txt").write_text(caption)
    return sources.FolderSource("x", {"train": str(folder / "images")})


def parquet(folder):
    columns = {"image": [{"bytes": image, "path": "x"} for image in IMAGES], "text": CAPTIONS}
    pq.write_table(pa.table(columns), folder / "a.parquet", row_group_size=2)
    names = {"image/encoded": "image", "caption": "text"}
    return sources.ParquetSource("x", {"train": f"{folder}/a.parquet"}, PAIR, names)


def text(folder):
    (folder / "a.txt").write_text("\n".join(CAPTIONS))
    return sources.TextSource("x", {"train": f"{folder}/a.txt"})


def prepared(folder):
    features = tfds.features.FeaturesDict({"text": tfds.features.Text()})
    rows = [(i, {"text": caption}) for i, caption in enumerate(CAPTIONS)]
    with pytest.MonkeyPatch.context() as patch:
        import importlib.resources.abc  # see test_tfds.py

        patch.setitem(sys.modules, "importlib_resources", importlib.resources)
        tfds.dataset_builders.store_as_tfds_dataset(
            name="web", version="1.0.0", features=features, split_datasets={"train": rows},
            data_dir=str(folder), file_format="tfrecord", disable_shuffling=True,
        )  # fmt: skip
    return sources.TFDSSource("web", {"train": "train"}, {"text": STRING}, str(folder))


MAKERS = [json_lines, table, images_and_texts, parquet, text, prepared]


@pytest.fixture(params=MAKERS, ids=lambda maker: maker.__name__)
def source(request, tmp_path, data_folder):
    return request.param(tmp_path)


@pytest.fixture
def task(source):
    paired = "caption" in source.parse(tf.constant(source.placeholder()), 0)
    options = (
        {"targets": "{caption}", "image": "image/encoded"} if paired else {"targets": "{text}"}
    )
    seqio.TaskRegistry.add(
        "sources_task",
        source=source,
        preprocessors=[functools.partial(from_record, **options), prefix_lm],
        output_features=task_features(default_vocabulary(), image=paired),
    )
    yield "sources_task", paired
    seqio.TaskRegistry.remove("sources_task")


LENGTHS = {"inputs": 16, "targets": 24}
PAIR_LENGTHS = {**LENGTHS, "image": 1, "example_seed": 2}


def whole(tokens):
    return default_vocabulary().decode([int(t) for t in tokens if t > 1])


def test_in_a_plain_task(task, source):
    name, paired = task
    dataset = seqio.get_mixture_or_task(name).get_dataset(
        sequence_length=PAIR_LENGTHS if paired else LENGTHS, split="train", shuffle=False
    )
    examples = list(dataset.as_numpy_iterator())
    texts = [whole([*e["inputs"], *e["targets"]]) for e in examples]
    assert sorted(texts) == sorted(CAPTIONS)
    if paired:
        shown = {text: e["image"].item() for text, e in zip(texts, examples, strict=True)}
        assert shown == dict(zip(CAPTIONS, IMAGES, strict=True))
    assert [int(e["id"]) for e in examples] == list(range(5))
    assert source.num_input_examples("train") == 5


def test_in_the_stream(task):
    name, paired = task
    sides = (
        {"pairs": {name: 1}, "documents": {}} if paired else {"pairs": {}, "documents": {name: 1}}
    )
    stream = GroupStream(
        **sides, groups=5, pair_lengths=PAIR_LENGTHS, document_lengths=LENGTHS,
        image_size=(8, 8), seed=1,
    )  # fmt: skip
    batches = stream.batches()
    (one, two), prefix = (next(batches), next(batches)), "" if paired else "document_"
    names = [f"{prefix}{side}" for side in ("encoder_input_tokens", "decoder_target_tokens")]
    orders = [
        [whole(np.concatenate([batch[side][group, 0] for side in names])) for group in range(5)]
        for batch in (one, two)
    ]
    assert sorted(orders[0]) == sorted(orders[1]) == sorted(CAPTIONS)
    assert not stream.ledger.named
    assert not paired or one["image"].std(axis=(1, 2, 3, 4)).all()
    batches.close()


def test_copies_work(source):
    for twin in (copy.deepcopy(source), pickle.loads(pickle.dumps(source))):
        assert twin.num_input_examples("train") == 5


def test_importing_them_imports_no_library_for_a_format():
    code = (
        "import simvlm_jax.data.sources, sys; print({'pyarrow', 'webdataset'} & set(sys.modules))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "set()"


@pytest.mark.parametrize("name", ["CSV", "JSONLines", "Folder", "Parquet", "TFDS", "Text"])
def test_a_source_may_be_described_where_no_data_is(name):
    options = () if name in ("Folder", "Text") else (PAIR,)
    made = getattr(sources, f"{name}Source")("x", {"train": "nowhere"}, *options)
    with pytest.raises(UserError, match="nowhere|x is not prepared"):
        made.get_dataset("train")
    with pytest.raises(UserError, match="'x' has no split 'test'; it has train"):
        made.get_dataset("test")
