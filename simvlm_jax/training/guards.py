"""What stops a run early: a loss that is no number, a polite request to end, or no step at all."""

import faulthandler
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils

from simvlm_jax import hosts
from simvlm_jax.errors import UserError


class NonFiniteError(UserError):
    """The loss, a gradient or a parameter became infinite or not a number."""


def require_counts(total_steps: int, checkpoint_every: int, log_every: int) -> None:
    """Checks that every argument is a whole number above 0.

    Raises:
        UserError: With the first that is not.
    """
    for name, value in locals().items():
        if not isinstance(value, int) or value < 1:
            raise UserError(f"{name}={value!r} is not a whole number above 0: set one.")


def require_amount(name: str, value: Any) -> None:
    """Checks that a number of minutes or hours is one that can be waited for.

    Raises:
        UserError: If it is not.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= 1e6:
        raise UserError(f"{name}={value!r} is not a number above 0, at most a million: set one.")


def require_not_behind(total_steps: int, step: int, model_dir: Path) -> None:
    """Checks that a run is not longer already than it should become.

    Raises:
        UserError: If it is.
    """
    if step > total_steps:
        raise UserError(
            f"total_steps={total_steps} lies behind the checkpoint of step {step} in {model_dir}: "
            f"set it to {step} or more, or use another model_dir."
        )


class FiniteGuard:
    """Watches losses and gradient norms on the device and looks at them only when asked.

    Looking at every step would make the host wait for the device; so the run may go on for some
    steps after a bad one, but `check` stands before every save and no bad state is ever written.
    """

    def __init__(self) -> None:
        """Starts with nothing to look at."""
        self._pending: list[tuple[int, jax.Array, jax.Array | float]] = []

    def watch(self, step: int, loss: jax.Array, gradient_norm: jax.Array | float = 0.0) -> None:
        """Notes the float32 scalars of a step without waiting for them."""
        self._pending.append((step, loss, gradient_norm))

    def check(self, last_good: Callable[[], str], params: Any = None) -> None:
        """Looks at everything noted since the last check, and at `params` where given.

        Args:
            last_good: Says which checkpoint is the last good one, for the sentence.
            params: A pytree of arrays that is about to be saved.

        Raises:
            NonFiniteError: With the first bad step.
        """
        pending, self._pending = jax.device_get(self._pending), []
        trouble = None
        for step, loss, norm in reversed(pending):
            if not np.isfinite(norm):
                trouble = f"The norm of the gradient became {norm} at step {step}"
            if not np.isfinite(loss):
                trouble = f"The loss became {loss} at step {step}"
        finite = jax.device_get([_finite(leaf) for leaf in jax.tree.leaves(params)])
        if trouble is None and not all(finite):
            trouble = "A parameter became infinite or not a number"
        if trouble:
            raise NonFiniteError(
                f"{trouble}: lower the learning rate or clip gradients; {last_good()}."
            )


@jax.jit
def _finite(array: jax.Array) -> jax.Array:
    return jnp.all(jnp.isfinite(array))


class Termination:
    """A context in which SIGTERM only asks for an end, which the loop asks for once a step.

    The former handler comes back at the end; if SIGTERM came, the process then leaves with exit
    code 0. Python takes signal handlers in its main thread alone; in any other thread this context
    does nothing.
    """

    _requested = False

    def __enter__(self) -> "Termination":
        """Takes SIGTERM over."""
        self._in_main_thread = threading.current_thread() is threading.main_thread()
        if self._in_main_thread:
            self._former = signal.signal(signal.SIGTERM, self._request)
        return self

    def __exit__(self, error: type | None, *_: Any) -> None:
        """Gives SIGTERM back.

        Raises:
            SystemExit: With code 0, if SIGTERM came and nothing else went wrong.
        """
        if self._in_main_thread:
            signal.signal(signal.SIGTERM, self._former or signal.SIG_DFL)
        self._leave(error)

    def reached(self, step: int) -> bool:
        """Whether the run is to end after this step."""
        del step
        return self._requested

    def _request(self, _: int, __: FrameType | None) -> None:
        self._requested = True

    def _leave(self, error: type | None) -> None:
        if self._requested and error is None:
            if hosts.is_first():
                print("Stopped by SIGTERM; run again to go on from here.", file=sys.stderr)
            raise SystemExit(0)


class SharedTermination(Termination):
    """The same for processes that met: SIGTERM to one of them ends all, after the same step.

    JAX listens for it itself from the meeting on, and a handler of ours would take that away.
    """

    def __enter__(self) -> "SharedTermination":
        """Leaves SIGTERM to JAX."""
        return self

    def __exit__(self, error: type | None, *_: Any) -> None:
        """Raises SystemExit as `Termination` does."""
        self._leave(error)

    def reached(self, step: int) -> bool:
        """Whether the run is to end after this step; all must ask after each."""
        self._requested = multihost_utils.reached_preemption_sync_point(step)
        return self._requested


def termination() -> Termination:
    """Makes the one that fits: processes that met listen together."""
    return SharedTermination() if hosts.joined() else Termination()


class Watchdog:
    """A context that ends the process, with the stacks of its threads, if no step ends for long.

    What hangs one process (a file system, a device) lets all others wait in a collective, whose
    heartbeats go on: without this they would for ever. The exit code is 1.
    """

    def __init__(self, minutes: float) -> None:
        """Waits for so many minutes, which have to do for compiling too.

        Raises:
            UserError: If that is no time.
        """
        require_amount("patience_minutes", minutes)
        self._seconds = 60 * minutes

    def __enter__(self) -> "Watchdog":
        """Begins to wait."""
        self.beat()
        return self

    def __exit__(self, *_: Any) -> None:
        """Waits no longer."""
        faulthandler.cancel_dump_traceback_later()

    def beat(self) -> None:
        """Begins anew."""
        # Its thread is none of Python's: it also ends a process whose interpreter is held.
        faulthandler.dump_traceback_later(self._seconds, exit=True, file=sys.__stderr__)
