import os
import signal
import threading

import jax.numpy as jnp
import numpy as np
import pytest

from simvlm_jax.training.guards import FiniteGuard, NonFiniteError, Termination


def last_good():
    return "the last good one is 3"


def test_finite_steps_pass_and_are_forgotten():
    guard = FiniteGuard()
    guard.watch(1, jnp.float32(2), jnp.float32(3))
    guard.check(last_good, {"kernel": jnp.ones(3)})
    guard.check(lambda: pytest.fail("nobody needs to know"))


@pytest.mark.parametrize(
    ("loss", "norm", "params", "sentence"),
    [
        (np.nan, 1, 1, "The loss became nan at step 5: .*; the last good one is 3."),
        (np.inf, np.nan, 1, "The loss became inf at step 5"),
        (1, np.inf, 1, "The norm of the gradient became inf at step 5"),
        (1, 1, np.nan, "A parameter became infinite or not a number"),
    ],
)
def test_the_first_bad_step_is_named(loss, norm, params, sentence):
    guard = FiniteGuard()
    guard.watch(4, jnp.float32(1), jnp.float32(1))
    guard.watch(5, jnp.float32(loss), jnp.float32(norm))
    if params == 1:
        guard.watch(6, jnp.float32(np.nan), jnp.float32(np.nan))
    with pytest.raises(NonFiniteError, match=sentence):
        guard.check(last_good, {"kernel": jnp.ones(3), "bias": jnp.array([1, params])})


def test_sigterm_sets_the_flag_and_the_former_handler_comes_back():
    calls = []
    former = signal.signal(signal.SIGTERM, lambda *_: calls.append("former"))
    try:
        with pytest.raises(SystemExit) as stopped:
            with Termination() as termination:
                assert not termination.reached(1)
                os.kill(os.getpid(), signal.SIGTERM)
                assert termination.reached(2) and not calls
        assert stopped.value.code == 0
        os.kill(os.getpid(), signal.SIGTERM)
        assert calls == ["former"]
    finally:
        signal.signal(signal.SIGTERM, former)


def test_an_error_counts_more_than_sigterm():
    with pytest.raises(KeyError):
        with Termination():
            os.kill(os.getpid(), signal.SIGTERM)
            raise KeyError


def test_another_thread_goes_without():
    outcome = []

    def use():
        with Termination() as termination:
            outcome.append(termination.reached(1))

    thread = threading.Thread(target=use)
    thread.start()
    thread.join()
    assert outcome == [False]
