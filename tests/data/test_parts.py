import functools

import numpy as np
import pytest
import seqio
import simvlm_jax.tasks  # noqa: F401  registers the tasks
from hypothesis import given
from hypothesis import strategies as st

from simvlm_jax.data.features import task_features
from simvlm_jax.data.parts import part_of
from simvlm_jax.data.preprocessors import from_record, prefix_lm
from simvlm_jax.data.sources import TextSource
from simvlm_jax.data.sources.base import Records
from simvlm_jax.data.streams import GroupStream
from simvlm_jax.data.task_examples import TaskExamples
from simvlm_jax.data.vocabulary import default_vocabulary
from simvlm_jax.errors import UserError

PAIR = {"image": 1, "example_seed": 2, "inputs": 16, "targets": 24}
TEXT = {"inputs": 20, "targets": 20}


class Numbers(Records):
    """Records that are their own numbers."""

    def read_shard(self, shard, positions):
        start = self.ends[shard - 1] if shard else 0
        return [str(start + position).encode() for position in positions]


def numbers(part):
    return [int(record) for record in part.read(range(len(part)))]


@given(st.lists(st.integers(0, 40), min_size=1, max_size=4), st.integers(0, 9))
def test_parts_are_nested_and_seeded_and_rounded(counts, key):
    total = sum(counts)
    records = Numbers([f"s{i}" for i in range(len(counts))], counts)
    before = set()
    for fraction in (0.01, 0.1, 0.29, 0.5, 1):
        if not round(total * fraction):
            with pytest.raises(UserError, match="leaves none"):
                part_of(records, fraction, key, "the task")
            continue
        part = part_of(records, fraction, key, "the task")
        found = numbers(part)
        assert len(part) == len(found) == round(total * fraction)
        assert found == sorted(set(found)) and before <= set(found)
        assert found == numbers(part_of(records, fraction, key, "the task"))
        for index, number in enumerate(found):
            assert part.name(index) == records.name(number)
            # Shards are told by the ends alone, too.
            shard = sum(index >= end for end in part.ends)
            assert records.shards[shard] == records.name(number)[0]
        before = set(found)


def test_another_seed_chooses_others():
    records = Numbers(["s"], [1000])
    chosen = [set(numbers(part_of(records, 0.1, key, "it"))) for key in range(3)]
    assert all(len(one & other) < 40 for one, other in zip(chosen, chosen[1:], strict=False))


@pytest.mark.parametrize("fraction", [0, -0.1, 1.1, float("nan")])
def test_a_fraction_is_a_part(fraction):
    with pytest.raises(UserError, match="must lie in"):
        part_of(Numbers(["s"], [10]), fraction, 0, "the task")


def stream(**options):
    return GroupStream({"openmoji_captions": 2}, {}, 3, PAIR, {}, (8, 8), 0, **options)


def captions(made, steps):
    batches = made.batches()
    found = {
        tuple(row[row > 1].tolist())
        for batch, _ in zip(batches, range(steps), strict=False)
        for row in batch["decoder_target_tokens"].reshape(6, -1)
    }
    batches.close()
    return found


def test_a_stream_shows_the_part_alone(data_folder):
    name = "openmoji_captions"
    small, large = (stream(fractions={name: f}) for f in (0.1, 0.5))
    few, more, every = captions(small, 4), captions(large, 20), captions(stream(), 20)
    assert len(few) == 3 and few < more < every and len(every) == 29
    assert small.report(4)[f"epoch/{name}"] == 8  # 24 examples of a part of 3
    assert small.fingerprint() != large.fingerprint() != stream().fingerprint()
    other = stream(fractions={name: 0.1}, fraction_seed=1)
    assert captions(other, 4) != few
    with pytest.raises(UserError, match="leaves none"):
        stream(fractions={name: 0.01})
    with pytest.raises(UserError, match="'coco_captions', which is not among"):
        stream(fractions={"coco_captions": 0.01})


def test_examples_of_a_part_are_what_they_are_in_the_whole(data_folder, tmp_path):
    def made(examples, indices):
        into = {
            name: np.zeros((len(indices), *shape), dtype)
            for name, (shape, dtype) in examples.features().items()
        }
        examples.read(np.array(indices), np.full(len(indices), 3), into)
        return into

    # Records without an id of their own: theirs is the place in the whole.
    text = "".join(f"red circle {i} green square {i} blue\n" for i in range(40))
    (tmp_path / "lines.txt").write_text(text)
    seqio.TaskRegistry.add(
        "lines",
        source=TextSource("lines", {"train": str(tmp_path / "lines.txt")}),
        preprocessors=[functools.partial(from_record, targets="{text}"), prefix_lm],
        output_features=task_features(default_vocabulary(), image=False),
    )
    whole, part = (TaskExamples("lines", "train", TEXT, (8, 8), 7) for _ in "ab")
    seqio.TaskRegistry.remove("lines")
    part.keep_part(0.5, 0)
    chosen = part._records.whole_indices(np.arange(len(part)))
    one, other = made(part, np.arange(len(part))), made(whole, chosen)
    for name in one:
        np.testing.assert_array_equal(one[name], other[name])
