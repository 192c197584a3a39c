"""What the makers of real content write is what the tasks read, and is true."""

import gzip

import numpy as np
import pytest
import simvlm_jax.tasks  # noqa: F401  registers the tasks

from benchmark_makers import fashion_mnist, openmoji
from benchmark_makers.files import COLOURS, SHAPES, drawing, write
from simvlm_jax.data.openmoji import Emoji
from simvlm_jax.data.plain import evaluation_examples, get_task
from simvlm_jax.data.sources import Unreadable
from simvlm_jax.data.testing_records import make_data

NOUNS = {noun: group for group, noun in openmoji.NOUNS.items()}


@pytest.fixture
def drawn(tmp_path, monkeypatch):
    """Six drawings of different looks for each split, one of each group."""

    def emoji(number, split):
        group = list(openmoji.NOUNS)[number]
        return Emoji(f"{0x1F300 + number:X}", f"{split} {group}", "Haus", group, split, number, "")

    looks = [drawing(c, s, "PNG") for c in COLOURS for s in SHAPES][:6]
    found = {
        split: [(emoji(number, split), look) for number, look in enumerate(looks)]
        for split in ("train", "val", "test")
    }
    monkeypatch.setattr(openmoji, "drawings", lambda limit: found)
    monkeypatch.setenv("SIMVLM_DATA_DIR", str(make_data(tmp_path)))
    monkeypatch.setenv("SIMVLM_CACHE_DIR", str(tmp_path / "cache"))
    return {look: found["train"][number][0].group for number, look in enumerate(looks)}


def readable(name, split):
    records = get_task(name).source.random_access(split)
    found = records.read(range(len(records)))
    assert found and not any(isinstance(record, Unreadable) for record in found)
    return len(found)


def test_statements_about_two_drawings_are_as_true_as_their_labels(drawn, tmp_path):
    openmoji.make_nlvr2(tmp_path, None)
    truths = []
    for split in ("train", "dev", "test_p"):
        assert readable("nlvr2", split) == 24
    for example in evaluation_examples("nlvr2", "dev"):
        name = example["identifier"].rpartition("-")[0]
        shown = [
            drawn[(tmp_path / "nlvr2" / "dev" / f"{name}-img{i}.png").read_bytes()] for i in (0, 1)
        ]
        where, _, noun = example["sentence"].partition(" show")
        is_it = [group == NOUNS[noun.removeprefix("s").strip()] for group in shown]
        truth = {
            "both images": all(is_it),
            "the left image": is_it[0],
            "the right image": is_it[1],
            "exactly one image": sum(is_it) == 1,
        }[where]
        assert truth == example["label"]
        truths.append(truth)
    assert 4 < sum(truths) < 20


def test_captions_pairs_and_translations_are_read(drawn, tmp_path):
    openmoji.make_captions(tmp_path, None)
    assert [readable("coco_captions", s) for s in ("train", "val", "test")] == [5, 5, 5]
    domains = [e["domain"] for e in evaluation_examples("nocaps", "val")]
    assert sorted(domains) == ["in-domain", *["near-domain"] * 5, "out-domain"]
    openmoji.make_snli_ve(tmp_path, None)
    assert readable("snli_ve", "train") == readable("snli", "train") == 18
    openmoji.make_multi30k(tmp_path, None)
    assert readable("multi30k_en_de", "test_2017_mscoco") == 2
    assert readable("multi30k_en_de", "train") == 6


def test_fashion_mnist_becomes_folders(tmp_path, monkeypatch):
    monkeypatch.setenv("SIMVLM_DATA_DIR", str(make_data(tmp_path)))
    monkeypatch.setenv("SIMVLM_CACHE_DIR", str(tmp_path / "cache"))
    pixels = np.arange(20 * 784, dtype=np.uint8)
    for name in fashion_mnist.FILES.values():
        images, labels = bytes(16) + pixels.tobytes(), bytes(8) + bytes(range(10)) * 2
        write(tmp_path / "raw" / f"{name}-images-idx3-ubyte.gz", gzip.compress(images))
        write(tmp_path / "raw" / f"{name}-labels-idx1-ubyte.gz", gzip.compress(labels))
    fashion_mnist.make(tmp_path, 15, tmp_path / "raw")
    assert readable("imagenet", "train") == readable("imagenet", "val") == 15
    labels = [e["label"] for e in evaluation_examples("imagenet", "val")]
    assert labels == sorted([*range(10), *range(5)])
