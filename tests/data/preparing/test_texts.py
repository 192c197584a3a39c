import dataclasses
import hashlib
import json

import pytest
import sentencepiece
import tensorflow as tf

from made_inputs import example, silent, write
from simvlm_jax.data.preparing import chunking, texts
from simvlm_jax.data.preparing.chunking import Settings
from simvlm_jax.data.preparing.data_sets import DataSet
from simvlm_jax.data.preparing.inputs import Input
from simvlm_jax.data.sources import ArrayRecordSource
from simvlm_jax.errors import UserError

WORDS = "red circle left green cross never always evening garden the of picture".split()
LIMIT = 16


def documents():
    for number in range(60):
        yield " ".join(WORDS[(number * 7 + i) % len(WORDS)] for i in range(1 + number % 23))


@pytest.fixture
def settings(tmp_path, monkeypatch):
    monkeypatch.setattr(chunking, "PART", 16)
    rows = [example(text=text) for text in documents()]
    rows[9:9] = [example(text=b"\xff"), example(text=3)]
    return Settings(Input(write(tmp_path / "in", rows), "auto", "", "text"), LIMIT)


@pytest.fixture
def model(made_data):
    return made_data / "vocabulary.model"


def prepare(settings, model, data, name="documents", workers=1):
    return texts.prepare_documents(DataSet(data, name, "train"), settings, model, workers, silent)


def read(folder, split="train"):
    string, integer = (tf.io.FixedLenFeature([], dtype) for dtype in (tf.string, tf.int64))
    source = ArrayRecordSource(str(folder), [split], {"id": integer, "text": string})
    dataset = source.get_dataset(split, shuffle=False)
    return [(int(e["id"]), e["text"].decode()) for e in dataset.as_numpy_iterator()]


def digests(folder):
    found = sorted(folder.glob("*.array_record"))
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in found}


def test_chunks_hold_all_words_in_order_and_waste_little(settings, model, tmp_path):
    summary, before = prepare(settings, model, tmp_path)
    chunks = read(tmp_path / "documents")
    assert not before and summary["records"] == {"train": len(chunks)}
    assert [identity for identity, _ in chunks] == list(range(len(chunks)))
    words = [word for _, chunk in chunks for word in chunk.split()]
    assert words == [word for text in documents() for word in text.split()]
    processor = sentencepiece.SentencePieceProcessor(model_file=str(model))
    lengths = [len(processor.encode(chunk)) for _, chunk in chunks]
    assert max(lengths) <= LIMIT
    padding = 1 - sum(length + 1 for length in lengths) / (len(lengths) * (LIMIT + 1))
    assert summary["pad_share"]["joined"] == pytest.approx(padding)
    assert summary["outcomes"] == {"kept": 60, "refused": 2}
    assert summary["causes"] == {"text is not UTF-8": 1, "text is of type int64, not bytes": 1}
    lines = (tmp_path / "documents" / "rejected-train.jsonl").read_text().splitlines()
    assert [json.loads(line)["key"] for line in lines] == ["9", "10"]
    assert "padding" not in (tmp_path / "documents" / "report-train.html").read_text()[:20]


def test_apart(settings, model, tmp_path):
    joined, _ = prepare(settings, model, tmp_path, "joined")
    apart, _ = prepare(dataclasses.replace(settings, joined=False), model, tmp_path, "apart")
    assert apart["pad_share"] == joined["pad_share"]  # each run measures both
    assert apart["pad_share"]["apart"] > 2 * apart["pad_share"]["joined"]
    processor = sentencepiece.SentencePieceProcessor(model_file=str(model))
    lengths = [len(processor.encode(chunk)) for _, chunk in read(tmp_path / "apart")]
    padding = 1 - sum(length + 1 for length in lengths) / (len(lengths) * (LIMIT + 1))
    assert apart["pad_share"]["apart"] == pytest.approx(padding)


def test_whole_documents_are_held_out(settings, model, tmp_path):
    settings = dataclasses.replace(settings, validation_share=0.3, joined=False)
    prepare(settings, model, tmp_path)
    train, validation = (read(tmp_path / "documents", s) for s in ("train", "validation"))
    assert validation[0][0] == len(train)  # no number twice
    ends = {" ".join(text.split()) for text in documents()}
    assert sum(chunk in ends for _, chunk in validation) > 0
    words = sorted(w for part in (train, validation) for _, chunk in part for w in chunk.split())
    assert words == sorted(word for text in documents() for word in text.split())


def test_the_same_bytes_after_an_interruption_and_in_more_processes(settings, model, tmp_path):
    prepare(settings, model, tmp_path, "whole", workers=2)

    def interrupt(what, done, total, before=0):
        if what == "cutting documents" and done > 20:
            raise KeyboardInterrupt

    data_set = DataSet(tmp_path, "broken", "train")
    with pytest.raises(KeyboardInterrupt):
        texts.prepare_documents(data_set, settings, model, 1, interrupt)
    told = []
    texts.prepare_documents(data_set, settings, model, 1, lambda *t: told.append(t))
    assert told[0][3] > 0
    assert digests(tmp_path / "broken") == digests(tmp_path / "whole")
    again, was_there = prepare(settings, model, tmp_path, "broken")
    assert was_there and again["records"]


def test_other_settings_and_vocabularies_are_refused(settings, model, tmp_path):
    prepare(settings, model, tmp_path)
    with pytest.raises(UserError, match="prepared with limit=16, not limit=20"):
        prepare(dataclasses.replace(settings, limit=20), model, tmp_path)
    other = tmp_path / "other.model"
    other.write_bytes(model.read_bytes() + b"\x32\x00")
    with pytest.raises(UserError, match="prepared with vocabulary="):
        prepare(settings, other, tmp_path)


def test_refusals(settings, model, tmp_path):
    with pytest.raises(UserError, match="There is no vocabulary .*simvlm prepare vocabulary"):
        prepare(settings, tmp_path / "none", tmp_path)
    no_text = Settings(Input(write(tmp_path / "b", [example(title="x")]), "auto", "", "text"))
    with pytest.raises(UserError, match="no field 'text'; they have title: choose with --field"):
        prepare(no_text, model, tmp_path)
    blank = Settings(Input(write(tmp_path / "c", [example(text=" ")]), "auto", "", "text"))
    with pytest.raises(UserError, match="No text is left for the split train"):
        prepare(blank, model, tmp_path)


def test_the_number_of_files_that_are_open_at_once_is_bounded(settings):
    job = chunking.Chunking(settings, ["train"], None, "", 10_000_000)
    assert len(job.parts()) <= chunking.MOST_PARTS and sum(job.parts()) == 10_000_000
