import numpy as np
import pytest
import seqio
import tensorflow as tf

from simvlm_jax.data.preprocessors import (
    OBJECTIVES,
    fill,
    from_record,
    objective,
    pick_one,
    source_to_target,
)
from simvlm_jax.errors import UserError

VOCABULARY = seqio.ByteVocabulary(extra_ids=20)
FEATURES = {name: seqio.Feature(VOCABULARY) for name in ("inputs", "targets")}
RECORD = {"id": 7, "caption/en": "red dot", "caption/de": "roter Punkt", "image/encoded": b"bytes"}


def only(dataset):
    (example,) = dataset.as_numpy_iterator()
    return example


def records(**more):
    return tf.data.Dataset.from_tensors({**RECORD, **more})


def sides(inputs, targets, lengths):
    dataset = tf.data.Dataset.from_tensors({"inputs": inputs, "targets": targets})
    return only(source_to_target(dataset, lengths, FEATURES))


def test_a_record_gets_the_names_that_objectives_expect():
    example = only(
        from_record(records(), "a picture of {caption/en}", "{caption/de}", "image/encoded")
    )
    assert example["targets"] == b"a picture of red dot" and example["inputs"] == b"roter Punkt"
    assert example["image"].tolist() == [b"bytes"] and "image/encoded" not in example
    assert example["caption/en"] == b"red dot" and example["id"] == 7
    assert example["example_seed"].tolist() == [0, 0]


def test_inputs_and_image_are_left_out_where_they_are_not_named():
    example = only(from_record(records(epoch=2), "{caption/en}"))
    assert "inputs" not in example and "image" not in example
    assert example["example_seed"].any() and example["epoch"] == 2


def test_templates():
    record = {"a": tf.constant("x"), "b/c": tf.constant(["y"])}
    assert fill("{a} and {b/c}!", record).numpy() == b"x and y!"
    assert fill("plain", record).numpy() == b"plain"
    assert fill("", record).numpy() == b""
    with pytest.raises(UserError, match="'absent'"):
        fill("{absent}", record)


def test_a_given_source_and_target_become_tokens():
    example = sides("ab", "cde", None)
    assert example["inputs"].tolist() == VOCABULARY.encode("ab")
    assert example["targets"].tolist() == [*VOCABULARY.encode("cde"), 1]
    assert example["inputs_pretokenized"] == b"ab" and example["targets_pretokenized"] == b"cde"


def test_sides_are_cut_and_a_cut_target_has_no_end():
    cut = sides("abcdef", "abcdef", {"inputs": 3, "targets": 4})
    assert cut["inputs"].tolist() == VOCABULARY.encode("abc")
    assert cut["targets"].tolist() == VOCABULARY.encode("abcd")
    assert sides("", "abc", {"inputs": 3, "targets": 4})["targets"].tolist()[-1] == 1
    # Exactly as long as the limit: nothing is lost, but the end does not fit.
    assert sides("", "abcd", {"inputs": 3, "targets": 4})["targets"].size == 4


def test_an_empty_target_teaches_nothing():
    assert sides("abc", "", {"inputs": 3, "targets": 4})["targets"].size == 0


def picks(field="captions", epochs=300, **fields):
    """What is picked of one record, epoch after epoch."""
    count = tf.data.Dataset.range(epochs)
    examples = count.map(lambda epoch: {"id": 7, "seed": 3, "epoch": epoch, **fields})
    return [example[field] for example in pick_one(examples, field).as_numpy_iterator()]


@pytest.mark.parametrize("count", [1, 2, 5])
def test_each_of_several_values_is_picked_as_often(count):
    values = [f"caption {n}".encode() for n in range(count)]
    epochs = 300 * count
    picked = picks(epochs=epochs, captions=values)
    shares = np.array([picked.count(value) for value in values]) / epochs
    assert sum(shares) == pytest.approx(1)
    np.testing.assert_allclose(shares, 1 / count, atol=4 * (1 / count / epochs) ** 0.5)
    if count > 1:
        follows = np.mean([one == other for one, other in zip(picked, picked[1:], strict=False)])
        assert follows == pytest.approx(1 / count, abs=4 * (1 / count / epochs) ** 0.5)


def test_examples_and_seeds_pick_for_themselves():
    def of(identities, seeds):
        pairs = tf.data.Dataset.from_tensor_slices((list(identities), list(seeds)))
        examples = pairs.map(lambda identity, seed: {
            "id": identity, "seed": seed, "captions": tf.range(50)})  # fmt: skip
        picked = pick_one(examples, "captions").as_numpy_iterator()
        return [int(example["captions"]) for example in picked]

    assert len(set(of([1] * 9, [0] * 9))) == 1
    assert len(set(of(range(40), [0] * 40))) > 20
    assert len(set(of([1] * 40, range(40)))) > 20


def test_lists_side_by_side_stay_together():
    numbers = picks("numbers", numbers=[0, 1, 2])
    letters = picks("letters", letters=["a", "b", "c"])
    assert [b"abc"[number : number + 1] for number in numbers] == letters


def test_of_no_value_there_is_an_empty_one():
    assert picks(epochs=2, captions=tf.zeros([0], tf.string)) == [b"", b""]
    assert picks(epochs=1, captions=tf.zeros([0], tf.int64)) == [0]


def test_a_field_that_is_no_list_cannot_be_picked_of():
    with pytest.raises(UserError, match=r"'caption/en' has the shape \(\) .*FixedLenSequence"):
        pick_one(records(), "caption/en")
    with pytest.raises(UserError, match="no field 'captions'"):
        pick_one(records(), "captions")


@pytest.mark.parametrize("name", sorted(OBJECTIVES))
def test_every_objective_serves_one_pipeline(name):
    dataset = from_record(records(), "{caption/en}")
    example = only(objective(name)(dataset, {"inputs": 12, "targets": 12}, FEATURES))
    assert example["inputs"].dtype == example["targets"].dtype == np.int32
    assert example["targets"][-1] == 1 and example["targets_pretokenized"] == b"red dot"


def test_objectives_take_options_and_unknown_ones_are_refused():
    dataset = from_record(records(), "{caption/en}")
    run = objective("prefix_lm", distribution="zero")
    assert only(run(dataset, {"inputs": 9, "targets": 9}, FEATURES))["inputs"].size == 0
    with pytest.raises(UserError, match="'masked'"):
        objective("masked")
