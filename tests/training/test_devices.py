import threading
import time

import jax
import numpy as np
import pytest
from jax.sharding import SingleDeviceSharding

from simvlm_jax.errors import UserError
from simvlm_jax.sharing import Share
from simvlm_jax.training import devices

HERE = Share(SingleDeviceSharding(jax.devices()[0]), 2)


class Batches:
    """A stream of just these batches."""

    def __init__(self, given):
        self.given = given

    def batches(self, start_step, groups):
        assert start_step == 4 and groups.tolist() == [0, 1]
        return self.given


def test_batches_come_in_order_and_one_ahead_in_another_thread():
    taken, threads = [], set()

    def batches():
        for step in range(100):
            taken.append(step)
            threads.add(threading.get_ident())
            yield {"inputs": np.full((2, 3), step)}

    prepared = devices.prefetch(Batches(batches()), 4, 4 + 5, HERE)
    for step, future in enumerate(prepared):
        batch = future.result()
        np.testing.assert_array_equal(batch["inputs"], np.full((2, 3), step))
        assert len(taken) in (step + 1, min(step + 2, 5))
    assert step == 4 and taken == list(range(5))
    assert threading.get_ident() not in threads


def test_errors_of_the_data_and_its_end_arrive():
    def broken():
        yield {"inputs": np.zeros(2)}
        raise KeyError("record 7")

    prepared = devices.prefetch(Batches(broken()), 4, 4 + 3, HERE)
    next(prepared).result()
    with pytest.raises(KeyError, match="record 7"):
        next(prepared).result()
    short = devices.prefetch(
        Batches(iter([{"inputs": np.zeros(2)}])), 4, 4 + 3, HERE
    )  # it has no close()
    with pytest.raises(UserError, match="The data ended 2 steps before the run"):
        [future.result() for future in short]
    short.close()


def test_a_batch_that_is_not_there_yet_can_be_told():
    released = threading.Event()

    def batches():
        released.wait(10)
        yield {"inputs": np.zeros(2)}

    prepared = devices.prefetch(Batches(batches()), 4, 4 + 1, HERE)
    future = next(prepared)
    assert not future.done()
    released.set()
    assert list(future.result(10)) == ["inputs"]
    prepared.close()


@pytest.mark.parametrize("taken", [1, 2, 9])
def test_its_end_ends_the_thread_and_then_the_batches(taken):
    threads, alive = [], []

    def batches():
        threads.append(threading.current_thread())
        try:
            for _ in range(99):
                time.sleep(0.01)  # so that the thread is at work when it is told to end
                yield {"inputs": np.zeros(2)}
        finally:
            alive.append(threads[0].is_alive())

    given = batches()  # held here, so that nobody but `prefetch` ends it
    prepared = devices.prefetch(Batches(given), 4, 4 + 9, HERE)
    for _ in range(taken):
        next(prepared).result()
    prepared.close()
    assert alive == [False] and not threads[0].is_alive()
