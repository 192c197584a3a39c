"""One small preparation, checked record by record against the packages it comes from."""

import io
import statistics

import pytest
import sentencepiece
from PIL import Image

from simvlm_jax import tasks
from simvlm_jax.data import concepts, documents, openmoji, preparation
from simvlm_jax.data.sources import ArrayRecordSource

SETTINGS = {"size": 16, "seed": 1, "vocabulary_size": 500, "document_tokens": 20, "limit": 90}
TOPICS = ("async", "booleans", "del", "execmodel", "global", "imaginary", "numbers", "pass")
SPLITS = {"openmoji": ["train", "variants", "concepts"], "documents": ["train", "validation"]}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """Returns (folder, summary, emoji that were given, what was reported, trained on)."""
    folder = tmp_path_factory.mktemp("prepared")
    emoji = openmoji.limited(openmoji.catalogue(), SETTINGS["limit"], SETTINGS["seed"])
    images = openmoji._render([example.drawing for example in emoji], SETTINGS["size"])
    reports, trained_on = [], []
    train_vocabulary = preparation.vocabulary.train_vocabulary
    with pytest.MonkeyPatch.context() as patch:
        texts = documents.topics()
        patch.setattr(documents, "topics", lambda: {name: texts[name] for name in TOPICS})
        patch.setattr(
            preparation.vocabulary,
            "train_vocabulary",
            lambda lines, *rest: train_vocabulary(trained_on.extend(lines) or trained_on, *rest),
        )
        found = preparation.write_openmoji(
            folder, SETTINGS, emoji, images, lambda *report: reports.append(report)
        )
    return folder, found, emoji, reports, trained_on


@pytest.fixture(scope="module")
def rows(prepared):
    """Returns the parsed records: (kind, split) -> list of dictionaries."""
    features = {"openmoji": tasks.openmoji.FIELDS, "documents": tasks.documents.FIELDS}
    result = {}
    for kind, splits in SPLITS.items():
        source = ArrayRecordSource(str(prepared[0] / kind), splits, features[kind])
        for split in splits:
            dataset = source.get_dataset(split, shuffle=False)
            result[kind, split] = list(dataset.as_numpy_iterator())
            assert len(source.list_shards(split)) == (4 if split == "train" else 1)
    return result


def test_counts(prepared, rows):
    _, found, emoji, _, _ = prepared
    for (kind, split), members in rows.items():
        assert found["counts"][kind][split] == len(members) > 0, (kind, split)
    kept = sum(len(rows["openmoji", split]) for split in SPLITS["openmoji"])
    assert kept + found["same_drawing_left_out"] == len(emoji)
    assert found["settings"] == SETTINGS


def test_records_say_what_the_packages_say(prepared, rows):
    by_key = {example.codepoints: example for example in prepared[2]}
    for split in SPLITS["openmoji"]:
        for row in rows["openmoji", split]:
            example = by_key[row["codepoints"].decode()]
            assert row["id"] == example.identity
            assert row["caption/en"].decode() == example.caption
            assert row["caption/de"].decode() == example.german
            assert row["concept"].decode() == concepts.base_concept(example.codepoints)
            assert row["group"].decode() == example.group
            image = Image.open(io.BytesIO(row["image/encoded"]))
            assert (image.format, image.mode, image.size) == ("PNG", "RGBA", (16, 16))


def test_splits_are_disjoint_in_every_respect(rows):
    by_split = [rows["openmoji", split] for split in SPLITS["openmoji"]]
    for field in ("id", "codepoints", "caption/en", "image/encoded"):
        values = [row[field] for members in by_split for row in members]
        assert len(set(values)) == len(values), field
    train, variants, unseen = ({row["concept"] for row in members} for members in by_split)
    assert variants <= train
    assert not unseen & train
    ids = [row["id"] for split in SPLITS["documents"] for row in rows["documents", split]]
    assert len(set(ids)) == len(ids)


def test_chunks_fit_and_are_full(prepared, rows):
    processor = sentencepiece.SentencePieceProcessor(
        model_file=str(prepared[0] / "vocabulary.model")
    )
    texts = [row["text"].decode() for row in rows["documents", "train"]]
    lengths = [len(processor.encode(text)) for text in texts]
    assert max(lengths) == SETTINGS["document_tokens"]
    assert statistics.mean(lengths) > 0.8 * SETTINGS["document_tokens"]
    assert processor.unk_id() not in [token for text in texts for token in processor.encode(text)]


def test_the_vocabulary_sees_training_texts_only(prepared, rows):
    trained_on = "\n".join(prepared[4])
    for row in rows["openmoji", "train"]:
        assert f"a picture of {row['caption/en'].decode()}\n" in trained_on
        assert f"\n{row['caption/de'].decode()}\n" in trained_on
    for split in ("variants", "concepts"):
        for row in rows["openmoji", split]:
            assert f"a picture of {row['caption/en'].decode()}\n" not in trained_on
    held_out = " ".join(row["text"].decode() for row in rows["documents", "validation"])
    sentences = [s for s in held_out.split(". ") if len(s.split()) >= 8]
    assert sentences and not [s for s in sentences if s in trained_on.replace("\n", " ")]


def test_caption_lengths(prepared, rows):
    folder, found, _, _, _ = prepared
    processor = sentencepiece.SentencePieceProcessor(model_file=str(folder / "vocabulary.model"))
    lengths = sorted(
        len(processor.encode("a picture of " + row["caption/en"].decode()))
        for split in SPLITS["openmoji"]
        for row in rows["openmoji", split]
    )
    told = found["caption_tokens"]["en"]
    assert told["mean"] == pytest.approx(statistics.mean(lengths), abs=0.01)
    assert told["longest"] == lengths[-1]
    assert sum(length <= told["percentile_95"] for length in lengths) >= 0.95 * len(lengths)


def test_reports(prepared):
    assert [what for what, _, _ in prepared[3]] == ["training the vocabulary", "writing"]
