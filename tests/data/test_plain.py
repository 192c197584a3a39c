import shutil

import numpy as np
import pytest
import simvlm_jax.tasks  # noqa: F401  registers the tasks

from simvlm_jax.data.pillow_images import load_image
from simvlm_jax.data.plain import check_task, evaluation_examples, get_task, plain_batches
from simvlm_jax.data.records import encode_example, write_shards
from simvlm_jax.data.sources import ArrayRecordSource
from simvlm_jax.data.testing_records import draw
from simvlm_jax.errors import UserError

LENGTHS = {"image": 1, "example_seed": 2, "inputs": 12, "targets": 14}
TEXT_LENGTHS = {"inputs": 20, "targets": 20}


def test_every_example_comes_once_and_the_last_batch_is_filled_up(data_folder):
    batches = list(plain_batches("openmoji_captions", "variants", LENGTHS, (8, 10), 4))
    assert [count for _, count in batches] == [4, 3]
    assert all(len(array) == 4 for batch, _ in batches for array in batch.values())
    last, count = batches[-1]
    assert not last["decoder_loss_weights"][count:].any()
    assert last["decoder_loss_weights"][:count].any(axis=1).all()
    images = np.concatenate([batch["image"][:count] for batch, count in batches])
    captions = [
        example["caption/en"] for example in evaluation_examples("openmoji_captions", "variants")
    ]
    for image, caption in zip(images, captions, strict=True):
        colour, shape, place = caption.replace(":", "").split()
        np.testing.assert_array_equal(image, load_image(draw(colour, shape, place), (8, 10)))


def test_a_second_reading_gives_the_same(data_folder):
    first, second = (
        list(plain_batches("documents_prefix_lm", "validation", TEXT_LENGTHS, (8, 8), 3))
        for _ in range(2)
    )
    for (one, _), (other, _) in zip(first, second, strict=True):
        for name in one:
            np.testing.assert_array_equal(one[name], other[name])
    assert "image" not in first[0][0]


def test_examples_keep_their_texts_and_ids_but_no_image(data_folder):
    examples = evaluation_examples("openmoji_en_de", "concepts")
    assert len(examples) == 6 and len({example["id"] for example in examples}) == 6
    for example in examples:
        assert example["inputs_pretokenized"] == example["caption/en"]
        assert example["targets_pretokenized"] == example["caption/de"]
        assert all(isinstance(value, str | int) for value in example.values())


def test_tasks_are_found_by_name_and_lengths_must_name_their_features(data_folder):
    assert isinstance(get_task("openmoji_captions").source, ArrayRecordSource)
    with pytest.raises(UserError, match="'openmoji' among .*openmoji_captions"):
        get_task("openmoji")
    for name, lengths in [("openmoji_captions", TEXT_LENGTHS), ("documents_lm", LENGTHS)]:
        with pytest.raises(UserError, match="features"):
            check_task(name, lengths)
    check_task("documents_lm", TEXT_LENGTHS)
    with pytest.raises(UserError, match="'test'"):
        next(plain_batches("documents_lm", "test", TEXT_LENGTHS, (8, 8), 2))


READERS = {
    "batches": lambda: list(
        plain_batches("documents_prefix_lm", "validation", TEXT_LENGTHS, (8, 8), 2)
    ),
    "examples": lambda: evaluation_examples("documents_prefix_lm", "validation"),
}


@pytest.fixture
def write_documents(made_data, tmp_path, monkeypatch):
    """Writes records in place of the split "validation" of a copy of the data."""
    monkeypatch.setenv("SIMVLM_DATA_DIR", str(shutil.copytree(made_data, tmp_path / "data")))

    def write(records):
        for path in (tmp_path / "data" / "documents").glob("validation-*"):
            path.unlink()
        (path,) = write_shards(tmp_path / "data" / "documents", "validation", records, 1)
        return path

    return write


def document(number, text):
    return encode_example({"id": number, "text": text})


@pytest.mark.parametrize("reader", READERS)
def test_a_damaged_record_ends_in_its_own_sentence(write_documents, reader):
    texts = [np.random.default_rng(i).bytes(2000) for i in range(9)]  # does not compress
    path = write_documents([document(i, text) for i, text in enumerate(texts)])
    content = bytearray(path.read_bytes())
    start = content.index(texts[4][:16])
    content[start : start + 16] = bytes(16)
    path.write_bytes(content)
    with pytest.raises(UserError, match=rf"^Record \d+ of .*{path.name} cannot be read .*again\.$"):
        READERS[reader]()


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("garbage", [b"garbage", b"\xff\x1b[2J\n" + b"x" * 5000])
def test_what_is_no_example_ends_in_one_short_sentence(write_documents, reader, garbage):
    write_documents([document(0, "a b c d"), garbage])
    with pytest.raises(UserError, match="'validation' of the task 'documents_prefix_lm'") as caught:
        READERS[reader]()
    sentence = str(caught.value)
    assert "Could not parse example" in sentence and "Iterator" not in sentence
    assert sentence.isprintable() and len(sentence) < 500


def test_a_text_that_is_not_utf8_is_told(write_documents):
    write_documents([document(0, b"a b \xff c d e f g")])
    with pytest.raises(UserError, match="'documents_prefix_lm' has a text that is not UTF-8"):
        evaluation_examples("documents_prefix_lm", "validation")
