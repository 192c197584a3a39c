"""What all sources do alike: in a plain task and in the stream."""

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
import webdataset
from pyarrow import parquet as pq

from simvlm_jax.data import sources
from simvlm_jax.data.features import task_features
from simvlm_jax.data.prefix import prefix_lm
from simvlm_jax.data.preprocessors import from_record
from simvlm_jax.data.records import encode_example, write_shards
from simvlm_jax.data.streams import GroupStream
from simvlm_jax.data.testing_records import draw
from simvlm_jax.data.vocabulary import default_vocabulary
from simvlm_jax.errors import UserError
from tfds_writer import write_tfds

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


def json_lines(folder, count=5):
    rows = list(zip(write_images(folder), CAPTIONS, strict=True))[:count]
    lines = [json.dumps({"image": name, "caption": caption}) for name, caption in rows]
    (folder / "a.jsonl").write_text("\n".join(lines))
    return sources.JSONLinesSource("x", {"train": f"{folder}/*.jsonl"}, PAIR)


def table(folder, count=5):
    with open(folder / "a.csv", "w", newline="") as file:
        rows = list(zip(write_images(folder), CAPTIONS, strict=True))[:count]
        csv.writer(file).writerows([("image", "caption"), *rows])
    return sources.CSVSource("x", {"train": f"{folder}/*.csv"}, PAIR)


def images_and_texts(folder, count=5):
    for name, caption in list(zip(write_images(folder), CAPTIONS, strict=True))[:count]:
        (folder / name).with_suffix(".txt").write_text(caption)
    return sources.FolderSource("x", {"train": str(folder / "image*")})


def parquet(folder, count=5):
    images = [{"bytes": image, "path": "x"} for image in IMAGES]
    columns = pa.table({"image": images, "text": CAPTIONS})
    pq.write_table(columns.slice(0, count), folder / "a.parquet", row_group_size=2)
    names = {"image/encoded": "image", "caption": "text"}
    return sources.ParquetSource("x", {"train": f"{folder}/*.parquet"}, PAIR, names)


def text(folder, count=5):
    (folder / "a.txt").write_text("\n".join(CAPTIONS[:count]))
    return sources.TextSource("x", {"train": f"{folder}/*.txt"})


def prepared(folder, count=5):
    write_tfds(folder, {"text": "text"}, [{"text": caption} for caption in CAPTIONS])
    if not count:  # which tensorflow-datasets would not write
        information = folder / "own" / "1.0.0" / "dataset_info.json"
        content = json.loads(information.read_text())
        content["splits"][0] |= {"shardLengths": ["0"], "numBytes": "0"}
        information.write_text(json.dumps(content))
        (shard,) = information.parent.glob("own-train*")
        shard.write_bytes(b"")
    return sources.TFDSSource("own", {"train": "train"}, {"text": STRING}, str(folder))


def tfrecord(folder, count=5):
    with tf.io.TFRecordWriter(f"{folder}/a.tfrecord") as writer:
        for record in examples()[:count]:
            writer.write(record)
    return sources.TFRecordSource("x", {"train": f"{folder}/*.tfrecord"}, PAIR)


def array_record(folder, count=5):
    write_shards(folder / "records", "train", examples()[:count], 1)
    return sources.ArrayRecordSource(str(folder / "records"), ["train"], PAIR)


def tar(folder, count=5):
    with webdataset.TarWriter(f"{folder}/a.tar") as writer:
        for n in range(count):
            writer.write({"__key__": f"{n:06}", "png": IMAGES[n], "txt": CAPTIONS[n]})
    return sources.WebDatasetSource("x", {"train": f"{folder}/*.tar"})


def examples():
    return [
        encode_example({"image/encoded": image, "caption": caption})
        for image, caption in zip(IMAGES, CAPTIONS, strict=True)
    ]


MAKERS = [
    *(json_lines, table, images_and_texts, parquet, text, prepared, tfrecord, array_record, tar)
]


@pytest.fixture(params=MAKERS, ids=lambda maker: maker.__name__)
def source(request, tmp_path, data_folder):
    return request.param(tmp_path)


def register(source):
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
    return "sources_task", paired


@pytest.fixture
def task(source):
    yield register(source)
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


def open_stream(name, paired):
    sides = (
        {"pairs": {name: 1}, "documents": {}} if paired else {"pairs": {}, "documents": {name: 1}}
    )
    return GroupStream(
        **sides, groups=5, pair_lengths=PAIR_LENGTHS, document_lengths=LENGTHS,
        image_size=(8, 8), seed=1,
    )  # fmt: skip


def first_batches(stream, count, groups=None):
    batches = stream.batches(0, groups)
    found = [next(batches) for _ in range(count)]
    batches.close()
    return found


def test_in_the_stream(task):
    name, paired = task
    stream, prefix = open_stream(name, paired), "" if paired else "document_"
    one, two = first_batches(stream, 2)
    names = [f"{prefix}{side}" for side in ("encoder_input_tokens", "decoder_target_tokens")]
    orders = [
        [whole(np.concatenate([batch[side][group, 0] for side in names])) for group in range(5)]
        for batch in (one, two)
    ]
    assert sorted(orders[0]) == sorted(orders[1]) == sorted(CAPTIONS)
    assert not stream.ledger.named
    assert not paired or one["image"].std(axis=(1, 2, 3, 4)).all()


def test_more_hosts_than_shards(task, source):
    """A plain task is divided by examples; the stream takes no notice of shards at all."""
    name, paired = task
    assert len(source.list_shards("train")) == 1
    shown = [
        [int(example["id"]) for example in seqio.get_mixture_or_task(name).get_dataset(
            sequence_length=PAIR_LENGTHS if paired else LENGTHS, split="train", shuffle=False,
            shard_info=seqio.ShardInfo(host, 3)).as_numpy_iterator()]
        for host in range(3)
    ]  # fmt: skip
    assert shown == [[0, 3], [1, 4], [2]]
    with pytest.raises(UserError, match="has 1 files, too few for 3 shards"):
        source.get_dataset("train", shard_info=seqio.ShardInfo(0, 3))
    stream = open_stream(name, paired)
    (wanted,) = first_batches(stream, 1)
    parts = [first_batches(stream, 1, [group])[0] for group in range(5)]
    for feature, array in wanted.items():
        np.testing.assert_array_equal(np.concatenate([part[feature] for part in parts]), array)


NOTHING = "has no files: nothing is found at|has no split named|is not prepared in"
EMPTY = "is empty; prepare it again|has 5 images .* and no caption for any"


@pytest.mark.parametrize("maker", MAKERS, ids=lambda maker: maker.__name__)
@pytest.mark.parametrize("what", ["files", "records"])
def test_a_source_without_anything_is_refused(maker, what, tmp_path, data_folder):
    if what == "files":
        made = maker(tmp_path)
        name, paired = register(made)
        for path in sorted(tmp_path.rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
        (tmp_path / "records").mkdir()
    else:
        name, paired = register(maker(tmp_path, 0))
    try:
        with pytest.raises(UserError, match=NOTHING if what == "files" else EMPTY) as caught:
            open_stream(name, paired)
        assert str(caught.value).count(". ") == 0
    finally:
        seqio.TaskRegistry.remove(name)


def test_copies_work(source):
    for twin in (copy.deepcopy(source), pickle.loads(pickle.dumps(source))):
        assert twin.num_input_examples("train") == 5


def test_importing_them_imports_no_library_for_a_format():
    wanted = "{'pyarrow', 'webdataset', 'fsspec', 'gcsfs'} & set(sys.modules)"
    code = f"import simvlm_jax.data.sources, sys; print({wanted})"
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
