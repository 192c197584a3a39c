import collections
import contextlib
import functools
import threading

import numpy as np
import pytest
import seqio
import simvlm_jax.tasks  # noqa: F401  registers the tasks
import tensorflow as tf

from simvlm_jax.data import streams
from simvlm_jax.data.features import task_features
from simvlm_jax.data.ledger import Failure, FailureLedger
from simvlm_jax.data.plain import get_task
from simvlm_jax.data.preprocessors import from_record, source_to_target
from simvlm_jax.data.records import encode_example, write_shards
from simvlm_jax.data.sources import ArrayRecordSource
from simvlm_jax.data.streams import GroupStream, host_groups
from simvlm_jax.data.task_examples import NO_TEXT, TaskExamples
from simvlm_jax.data.testing_records import draw, write_records
from simvlm_jax.data.vocabulary import default_vocabulary
from simvlm_jax.errors import UserError

PAIR = {"image": 1, "example_seed": 2, "inputs": 16, "targets": 24}
TEXT = {"inputs": 2, "targets": 200}  # room for whole documents
DOCUMENTS = 11
TOKENS = ["encoder_input_tokens", "decoder_target_tokens"]


def stream(pairs=None, documents=None, groups=4, **options):
    settings = {"pair_lengths": PAIR, "document_lengths": TEXT, "image_size": (8, 8), "seed": 1}
    return GroupStream(pairs or {}, documents or {}, groups, **(settings | options))


def take(made, count, start=0, groups=None):
    batches = made.batches(start, groups)
    return [next(batches) for _ in range(count)]


def texts(batches, prefix=""):
    """The whole texts of a stream, in order: prefix and rest joined again, without pads."""
    for batch in batches:
        sides = [
            batch[prefix + name].reshape(-1, batch[prefix + name].shape[-1]) for name in TOKENS
        ]
        for pair in zip(*sides, strict=True):
            yield tuple(int(token) for side in pair for token in side if token)


def assert_equal(one, other):
    assert set(one) == set(other)
    for name in one:
        np.testing.assert_array_equal(one[name], other[name])


@contextlib.contextmanager
def registered(name, source, *preprocessors, image=False):
    features = task_features(default_vocabulary(), image=image)
    seqio.TaskRegistry.add(
        name, source=source, preprocessors=preprocessors, output_features=features
    )
    yield name
    seqio.TaskRegistry.remove(name)


def test_groups_hold_exact_counts_of_each_side(data_folder):
    made = stream({"openmoji_prefix_lm": 2, "openmoji_en_de": 1}, {"documents_lm": 1})
    (batch,) = take(made, 1)
    assert made.input_shapes == {name: array.shape for name, array in batch.items()}
    assert made.input_types == {name: array.dtype for name, array in batch.items()}
    assert batch["image"].shape == (4, 3, 8, 8, 3)
    assert batch["document_decoder_target_tokens"].shape == (4, 1, 200)
    # The second task stands behind the first in every group: its prefix is not the prompt's.
    alone = take(stream({"openmoji_en_de": 1}), 1)[0]
    np.testing.assert_array_equal(batch["image"][:, 2:], alone["image"])


def test_every_document_comes_once_an_epoch_across_ragged_ends(data_folder):
    made = stream(documents={"documents_lm": 1}, groups=3)
    seen = list(texts(take(made, DOCUMENTS), "document_"))
    epochs = [seen[start : start + DOCUMENTS] for start in range(0, 3 * DOCUMENTS, DOCUMENTS)]
    assert all(set(epoch) == set(seen) for epoch in epochs)
    assert len(set(seen)) == DOCUMENTS and len({tuple(epoch) for epoch in epochs}) == 3


def test_any_step_can_be_the_first(data_folder):
    made = stream({"openmoji_prefix_lm": 2}, {"documents_prefix_lm": 1})
    wanted = take(made, 12)
    for start in (1, 9):
        for one, other in zip(take(made, 3, start), wanted[start:], strict=False):
            assert_equal(one, other)


@pytest.mark.parametrize("groups", [[0], [1, 2], [3, 0], [2, 0, 1, 3]])
def test_any_groups_are_those_of_the_whole_batch(data_folder, groups):
    made = stream({"openmoji_prefix_lm": 2}, {"documents_prefix_lm": 1})
    for part, whole in zip(take(made, 3, groups=groups), take(made, 3), strict=True):
        assert_equal(part, {name: array[groups] for name, array in whole.items()})


def test_only_the_records_of_the_groups_are_read(data_folder):
    made, read = stream(documents={"documents_lm": 2}), []
    records = made._parts[0].examples._records
    read_all = records.read
    records.read = lambda indices: read.extend(indices) or read_all(indices)
    batches = made.batches(0, [1, 3])
    parts = [next(batches) for _ in range(2)]
    batches.close()
    ahead = len(read) // (2 * 2)  # batches that were begun
    assert len(parts) <= ahead <= 2 + 3 and len(read) == ahead * 2 * 2


def test_the_groups_that_t5x_wants_of_a_host():
    assert [list(host_groups(6, host, 3)) for host in range(3)] == [[0, 1], [2, 3], [4, 5]]
    with pytest.raises(UserError, match="4 groups cannot be divided over 3 hosts"):
        host_groups(4, 0, 3)
    with pytest.raises(UserError, match="no host 2 among 2"):
        host_groups(4, 2, 2)


def test_fingerprints_tell_data_apart(data_folder):
    sides = {"openmoji_prefix_lm": 1}, {"documents_prefix_lm": 1}
    one, other = stream(*sides).fingerprint(), stream(*sides, seed=5).fingerprint()
    assert one == other and set(one) == {"openmoji_prefix_lm", "documents_prefix_lm"}
    assert len(set(one.values())) == 2


def test_epochs_change_prefixes_and_crops(data_folder):
    batches = take(stream({"openmoji_prefix_lm": 1}, groups=29), 2)
    shown = collections.defaultdict(list)
    for batch in batches:
        for slot, text in enumerate(texts([batch])):
            prefix = int((batch["encoder_input_tokens"][slot] != 0).sum())
            shown[text].append((prefix, batch["image"][slot].tobytes()))
    assert len(shown) == 29 and all(len(times) == 2 for times in shown.values())
    assert sum(one[0] != other[0] for one, other in shown.values()) > 15
    assert all(one[1] != other[1] for one, other in shown.values())


def test_seed_decides_the_order(data_folder):
    orders = [
        list(texts(take(stream(documents={"documents_lm": 1}, seed=seed), 2), "document_"))
        for seed in (1, 1, 2)
    ]
    assert orders[0] == orders[1] != orders[2]


def test_examples_are_those_of_the_files(data_folder):
    seen = set(texts(take(stream(documents={"documents_lm": 1}, groups=DOCUMENTS), 1), "document_"))
    source, vocabulary = get_task("documents_lm").source, default_vocabulary()
    stored = source.get_dataset("train", shuffle=False).as_numpy_iterator()
    assert seen == {(*vocabulary.encode(e["text"].decode()), 1) for e in stored}


def test_broken_images_keep_their_slots_and_too_many_stop_the_run(data_folder, tmp_path):
    whole = draw("red", "circle", "left")
    images = [whole, whole[:50], whole, whole]
    records = [{"id": n, "image": image, "text": "a red circle"} for n, image in enumerate(images)]
    write_records(tmp_path, "train", records)
    fields = {
        name: tf.io.FixedLenFeature([], tf.int64 if name == "id" else tf.string)
        for name in ("id", "image", "text")
    }
    source = ArrayRecordSource(str(tmp_path), ["train"], fields)
    named = functools.partial(from_record, targets="{text}", inputs="a", image="image")
    with registered("broken_images", source, named, source_to_target, image=True) as task:
        ledger = FailureLedger(largest_share=0.0, always_allowed=1 << 30)
        (batch,) = take(stream({task: 1}, ledger=ledger), 1)
        taught = batch["decoder_loss_weights"].any(axis=(1, 2))
        assert sorted(taught) == [False, True, True, True]
        assert not batch["image"][~taught].any() and batch["image"][taught].any()
        assert [(bad.source, bad.key) for bad in ledger.named] == [(task, "0")]
        assert all("image file is truncated" in bad.cause for bad in ledger.named)
        strict = FailureLedger(largest_share=0.1, always_allowed=0)
        with pytest.raises(UserError, match="record 0 of .* in broken_images"):
            take(stream({task: 1}, ledger=strict), 1)


TEXT_FIELDS = {"text": tf.io.FixedLenFeature([], tf.string)}


@contextlib.contextmanager
def texts_task(folder, records, fields=TEXT_FIELDS):
    """A text task over serialized records in one file."""
    write_shards(folder, "train", records, 1)
    named = functools.partial(from_record, targets="{text}", inputs="a")
    source = ArrayRecordSource(str(folder), ["train"], fields)
    with registered("bad_texts", source, named, source_to_target) as task:
        yield task


@pytest.mark.parametrize(
    ("bad", "cause"),
    [
        (b"no example", "it is no tf.train.Example"),
        (encode_example({"other": "a"}), "a field is missing"),
        (encode_example({"text": 3}), "a field has another type than the source says"),
        (encode_example({"text": b"red \xff"}), NO_TEXT),
        (encode_example({"text": ""}), NO_TEXT),
        (encode_example({"text": " \n\t"}), NO_TEXT),
        (encode_example({"text": "red circle " * 1_000_000}), NO_TEXT),  # 10 MB
    ],
)
def test_a_bad_record_keeps_its_place_and_the_others_stay(data_folder, tmp_path, bad, cause):
    good = [encode_example({"text": f"{colour} circle"}) for colour in ("red", "green", "blue")]
    with texts_task(tmp_path / "good", [*good, good[0]]) as task:
        (wanted,) = take(stream(documents={task: 1}), 1)
    with texts_task(tmp_path / "bad", [*good, bad]) as task:
        made = stream(documents={task: 1})
        (batch,) = take(made, 1)
    shard = str(tmp_path / "bad" / "train-00000-of-00001.array_record")
    assert made.ledger.named == {Failure(task, shard, "3", cause)}
    assert made.report(1)["unusable"] == 1
    taught = batch["document_decoder_loss_weights"].any(axis=(1, 2))
    assert taught.sum() == 3
    for name, array in wanted.items():
        np.testing.assert_array_equal(batch[name][taught], array[taught])


def test_a_nul_byte_is_an_unknown_character(data_folder, tmp_path):
    records = [encode_example({"text": text}) for text in ("red\0circle", "red circle")]
    with texts_task(tmp_path, records) as task:
        made = stream(documents={task: 1}, groups=2)
        seen = set(texts(take(made, 1), "document_"))
    assert made.report(1)["unusable"] == 0
    unknown = default_vocabulary().unk_id
    assert sorted(unknown in text for text in seen) == [False, True]


def test_a_damaged_record_is_named(data_folder, tmp_path):
    noise = np.random.default_rng(0)  # does not compress, so it stands in the file as it is
    fields = [{"text": f"red circle {n}", "noise": noise.bytes(2000)} for n in range(4)]
    records = [encode_example(record) for record in fields]
    with texts_task(tmp_path, records) as task:
        (path,) = tmp_path.iterdir()
        content = bytearray(path.read_bytes())
        start = content.index(fields[2]["noise"][:30])
        content[start : start + 30] = bytes(30)
        path.write_bytes(content)
        made = stream(documents={task: 1})
        (batch,) = take(made, 1)
    cause = "the bytes of the record are damaged"
    assert [(bad.key, bad.cause) for bad in made.ledger.named] == [("2", cause)]
    assert batch["document_decoder_loss_weights"].any(axis=(1, 2)).sum() == 3


def test_the_report_tells_epochs_pads_and_unusable_examples(data_folder):
    made = stream({"openmoji_prefix_lm": 2, "openmoji_en_de": 1}, {"documents_lm": 1})
    assert made.report(0)["epoch/documents_lm"] == 0
    batches = take(made, 3, start=6)
    take(made, 1, start=9)  # read ahead: no part of what was trained on
    told = made.report(9)
    assert told["epoch/documents_lm"] == 9 * 4 / DOCUMENTS
    assert told["epoch/openmoji_prefix_lm"] == 9 * 4 * 2 / 29
    assert told["epoch/openmoji_en_de"] == 9 * 4 / 29
    places = [
        batch[name]
        for batch in batches
        for name in batch
        if name.endswith(("encoder_input_tokens", "target_tokens"))
    ]
    pads = sum((array == 0).sum() for array in places) / sum(array.size for array in places)
    assert told["pad_share"] == pytest.approx(pads) and told["unusable"] == 0


def test_the_number_of_threads_and_of_rows_at_once_change_nothing(data_folder, monkeypatch):
    sides = {"pairs": {"openmoji_prefix_lm": 3}, "documents": {"documents_prefix_lm": 2}}
    wanted = take(stream(**sides, threads=1), 3)
    monkeypatch.setattr(streams, "FEWEST_ROWS", 1)
    for one, other in zip(take(stream(**sides, threads=5), 3), wanted, strict=True):
        assert_equal(one, other)


def test_a_late_start_reads_no_more_than_an_early_one(data_folder, monkeypatch):
    asked = []
    made = stream({"openmoji_prefix_lm": 2}, {"documents_lm": 1})
    read = TaskExamples.read
    monkeypatch.setattr(
        TaskExamples, "read", lambda self, i, *rest: asked.append(len(i)) or read(self, i, *rest)
    )
    for start in (0, 10**4, 10**6):
        asked.clear()
        batches = made.batches(start)
        next(batches)
        batches.close()
        assert sum(asked) <= (streams.BATCHES_AHEAD + 1) * 4 * 3


def test_a_task_on_both_sides_is_refused(data_folder):
    with pytest.raises(UserError, match="'documents_lm' stands among the pairs and among"):
        stream({"documents_lm": 1}, {"documents_lm": 1})


def test_no_thread_stays_behind(data_folder):
    before = threading.active_count()
    batches = stream(documents={"documents_lm": 1}, threads=3).batches()
    next(batches)
    batches.close()
    assert threading.active_count() == before


def test_a_task_that_filters_is_refused(data_folder):
    source = get_task("documents_lm").source
    filtering = lambda dataset: dataset.filter(lambda example: example["id"] > 0)  # noqa: E731
    named = functools.partial(from_record, targets="{text}", inputs="a")
    with (
        registered("filtering", source, filtering, named, source_to_target) as task,
        pytest.raises(UserError, match="'filtering' filters"),
    ):
        take(stream(documents={task: 1}), 1)


def test_a_source_without_random_access_is_refused(data_folder):
    source = seqio.FunctionDataSource(lambda split, shuffle_files, seed=None: None, ["train"])
    with registered("in_order", source) as task, pytest.raises(UserError, match="by index"):
        stream(documents={task: 1})


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"groups": 0}, "0 groups"),
        ({"documents": {}}, "at least one task"),
        ({"documents": {"documents_lm": 0}}, "at least one example"),
        ({"documents": {"unknown": 1}}, "no task 'unknown'"),
        ({"split": "test"}, "no split 'test'"),
        ({"document_lengths": {"inputs": 3}}, "give a length for each"),
    ],
)
def test_what_cannot_be_is_refused_at_once(data_folder, options, sentence):
    with pytest.raises(UserError, match=sentence):
        stream(**({"documents": {"documents_lm": 1}} | options))
