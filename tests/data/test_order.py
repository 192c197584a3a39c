import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simvlm_jax.data.order import locate, order_key, positions_of


def places(first, count, records, key=5):
    epochs, indices = locate(np.arange(first, first + count), records, key)
    return epochs.tolist(), indices.tolist()


@given(st.integers(1, 60), st.integers(0, 2**63 - 1))
@settings(deadline=None, max_examples=40)
def test_every_record_is_shown_once_an_epoch(records, key):
    epochs, indices = places(0, 3 * records, records, key)
    for epoch in range(3):
        part = slice(epoch * records, (epoch + 1) * records)
        assert set(epochs[part]) == {epoch}
        assert sorted(indices[part]) == list(range(records))


def test_orders_differ_between_epochs_seeds_and_tasks():
    _, indices = places(0, 200, 100)
    assert indices[:100] != indices[100:]
    keys = {order_key(seed, name) for seed in (0, 1) for name in ("a", "b")}
    assert len(keys) == 4 and all(0 <= key < 2**63 for key in keys)
    assert len({tuple(places(0, 100, 100, key)[1]) for key in keys}) == 4


def test_any_position_is_reached_at_once():
    epochs, indices = places(10**15, 3, 1000)
    assert epochs == [10**12] * 3
    assert indices == places(10**15 - 2, 5, 1000)[1][2:]


def correlation(one, other):
    """In standard deviations of what independent orders would have."""
    one, other = (np.asarray(values, float) for values in (one, other))
    return abs(np.corrcoef(one, other)[0, 1]) * np.sqrt(len(one))


@pytest.mark.parametrize("records", [4_096, 65_536, 1_000_000])
def test_orders_are_random_within_an_epoch_and_between_epochs_and_seeds(records):
    count = min(records, 100_000)
    orders = [places(epoch * records, count, records)[1] for epoch in range(3)]
    orders += [places(0, count, records, order_key(seed, "a"))[1] for seed in range(2)]
    for order in orders:
        assert max(correlation(order[lag:], order[:-lag]) for lag in (1, 2, 3, 8, 64)) < 5
        assert correlation(order, range(count)) < 5
    for one, other in itertools.combinations(orders, 2):
        assert correlation(one, other) < 5


@pytest.mark.parametrize("records", [29, 4_000])
def test_no_order_comes_twice(records):
    epochs = {tuple(places(epoch * records, 20, records)[1]) for epoch in range(600)}
    seeds = {tuple(places(0, 20, records, order_key(seed, "a"))[1]) for seed in range(600)}
    assert len(epochs) == len(seeds) == 600


@given(st.integers(1, 4), st.integers(1, 5), st.integers(1, 3))
@settings(deadline=None, max_examples=30)
def test_processes_together_take_every_position(processes, local, per_group):
    groups = np.arange(processes * local)
    shares = [groups[process::processes] for process in range(processes)]  # any division does
    taken = [
        positions_of(step, share, len(groups), per_group) for step in range(4) for share in shares
    ]
    everything = np.arange(4 * len(groups) * per_group)
    np.testing.assert_array_equal(np.sort(np.concatenate(taken)), everything)


def test_worked_example_of_the_docstring():
    groups = np.array([2, 3])
    assert positions_of(0, groups, 4, 2).tolist() == [4, 5, 6, 7]
    assert positions_of(1, groups, 4, 2).tolist() == [12, 13, 14, 15]
