import numpy as np
import pytest
import tensorflow as tf

from simvlm_jax.data.seeds import (
    IMAGE,
    PREFIX,
    augmentation_seed,
    example_key,
    uniform_draws,
    uniform_integer,
)
from simvlm_jax.errors import UserError


def record(number, **fields):
    return {name: tf.constant(value, tf.int64) for name, value in {"id": number, **fields}.items()}


def test_keys_differ_by_seed_epoch_id_and_use():
    keys = {
        tuple(example_key(record(number, seed=seed, epoch=epoch), stream).numpy())
        for number in (0, 1, 7)
        for seed in (0, 1)
        for epoch in (0, 1)
        for stream in (PREFIX, IMAGE)
    }
    assert len(keys) == 24


def test_seed_and_epoch_count_as_zero_where_no_stream_put_them():
    full = example_key(record(5, seed=0, epoch=0), PREFIX)
    np.testing.assert_array_equal(example_key(record(5), PREFIX), full)


def test_swapped_numbers_give_other_keys():
    one = example_key(record(2, seed=1, epoch=3), PREFIX)
    other = example_key(record(3, seed=1, epoch=2), PREFIX)
    assert one.numpy().tolist() != other.numpy().tolist()


def test_augmentation_seed_is_zero_only_without_an_epoch():
    assert augmentation_seed(record(5)).numpy().tolist() == [0, 0]
    seeds = [augmentation_seed(record(n, epoch=0)).numpy().tolist() for n in range(20)]
    assert [0, 0] not in seeds and len({tuple(seed) for seed in seeds}) == 20


def test_records_without_an_id_are_refused():
    with pytest.raises(UserError, match="'id'"):
        example_key({"text": tf.constant("a")}, PREFIX)


def test_both_ends_of_an_integer_draw_occur():
    draws = {int(uniform_integer(tf.constant([1, n]), 3, 5)) for n in range(60)}
    assert draws == {3, 4, 5}


def test_draws_are_uniform_and_do_not_follow_the_seeds():
    seeds = np.stack(np.meshgrid(np.arange(-50, 50), np.arange(100)), axis=-1).reshape(-1, 2)
    draws = uniform_draws(seeds, 5)
    assert draws.shape == (10_000, 5) and draws.min() >= 0 and draws.max() < 1
    np.testing.assert_array_equal(draws, uniform_draws(seeds, 7)[:, :5])
    columns = [*draws.T, *seeds.T, np.roll(draws[:, 0], 1), np.roll(draws[:, 0], 100)]
    correlations = np.corrcoef(columns) - np.eye(len(columns))
    correlations[5, 6] = correlations[6, 5] = 0  # of the seeds themselves
    assert np.abs(correlations).max() * 100 < 5  # standard deviations
    for column in draws.T:
        counts = np.histogram(column, 20, (0, 1))[0]
        assert ((counts - 500) ** 2 / 500).sum() < 50  # chi-squared of 19 degrees: 1 in 10,000


def test_splitmix64_s_own_first_numbers():
    # Of Vigna's splitmix64.c with the state 0, which two rounds of mixing leave at 0.
    wanted = np.array([0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F], np.uint64)
    draws = uniform_draws(np.zeros((1, 2), np.int64), 3)[0]
    np.testing.assert_array_equal(draws, (wanted >> np.uint64(11)) * 2.0**-53)
