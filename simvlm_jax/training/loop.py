"""The training loop. It knows steps, devices and folders, and nothing of the model it trains.

One step, in this order:
  1. take the batch that a thread has prepared and put on the devices, and let it prepare the next;
  2. dispatch the step: loss and gradients with the step's own dropout key, the optimizer's update;
  3. note the metrics, the loss and the gradient's norm, which stay on the devices;
  4. wait for the step before this one, so that the host is never more than one step ahead;
  5. at a log point, after the first step, at the end: fetch and check what was noted, report it;
  6. at a checkpoint, at the end and after SIGTERM: check the parameters, save in the background.
After SIGTERM the run then leaves with exit code 0, once the save is done: SIGTERM is the outermost
context, so that it cannot end the process during the last save.

Of several processes each does all this in the same order, reads its share of the data, and saves
its share of the state. The first alone tells, and writes what only one should.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import jax
import optax

from simvlm_jax import hosts
from simvlm_jax.partitioning import Partitioner
from simvlm_jax.sharing import Share
from simvlm_jax.training import (
    devices,
    folder,
    freezing,
    guards,
    opening,
    profiling,
    t5x_checkpoints,
)
from simvlm_jax.training.checkpoints import Checkpoints
from simvlm_jax.training.keeping import THREE_NEWEST, KeepRules
from simvlm_jax.training.progress import Progress, progress
from simvlm_jax.training.state import TrainState, abstract_state, create_state, lay_out
from simvlm_jax.training.step import compile_step
from simvlm_jax.training.t5x_format import steps as t5x_steps


def train(
    model: Any,
    optimizer: optax.GradientTransformation,
    stream: Any,
    model_dir: str | Path,
    total_steps: int,
    seed: int = 0,
    checkpoint_every: int = 1000,
    log_every: int = 50,
    keep: KeepRules = THREE_NEWEST,
    checkpoint_minutes: float | None = None,
    extra_files: Mapping[str, bytes] | None = None,
    initial_params: Any = None,
    partitioner: Partitioner | None = None,
    tensorboard: bool = True,
    profile: tuple[int, int] | None = None,
    patience_minutes: float = 30,
) -> TrainState:
    """Trains to `total_steps` in a folder, from where its newest checkpoint stands, bit for bit.

    Args:
        model: Offers `loss_fn`, `get_initial_variables`, `train_flops`, and may offer `frozen`.
        optimizer: Any optax transform.
        stream: Offers `batches(start_step, groups)`, `input_shapes`, `input_types`, `report(step)`.
        model_dir: The run's folder.
        total_steps: Batches in the whole run, the resumed part included.
        seed: Of the initial parameters and of dropout.
        checkpoint_every: Steps between checkpoints; the last step always has one.
        log_every: Steps between reports; a start's first step and the last step always have one.
        keep: Which checkpoints stay.
        checkpoint_minutes: Saves too when so much time went by since the last save, at log points.
        extra_files: Files for the folder by name; `folder.FIXED_FILES` must not change later.
        initial_params: Start from these, or what this function returns, instead of the model's own.
        partitioner: Lays everything out on the devices; by default each has all parameters.
        tensorboard: Writes TensorBoard events too.
        profile: Traces from the first of these steps to before the second, counted from 1.
        patience_minutes: A step that takes longer, compiling included, ends the process (code 1).

    Raises:
        UserError: If something does not fit (the sentence says what), or a loss is not finite.
        SystemExit: With code 0, after SIGTERM.
    """
    guards.require_counts(total_steps, checkpoint_every, log_every)
    profiler = profiling.profiler(profile, model_dir, total_steps)
    layout = lay_out(model, stream, partitioner or Partitioner())
    share = Share(layout.by_group, next(iter(stream.input_shapes.values()))[0])
    flops = model.train_flops(stream.input_shapes)
    target = abstract_state(model, optimizer, stream, layout)
    opening.tell(share, flops, freezing.describe(optimizer, model, target.params))
    saved = Checkpoints(model_dir, keep, checkpoint_every, checkpoint_minutes)
    with guards.termination() as termination, saved as checkpoints, profiler:
        state = _restore(checkpoints, target, Path(model_dir), total_steps, extra_files or {})
        state = state or create_state(model, optimizer, stream, target, seed, initial_params)
        if (start := int(state.step)) < total_steps:
            step_function = compile_step(model, optimizer, target, layout, seed)
            told = progress(model_dir, start, total_steps, flops, tensorboard, stream.report)
            batches = devices.prefetch(stream, start, total_steps, share)
            parts = termination, checkpoints, told, profiler, guards.Watchdog(patience_minutes)
            return _run(step_function, state, batches, *parts, log_every)
        return state


def _run(
    step_function: Callable,
    state: TrainState,
    batches: Iterator[Future[dict]],
    termination: guards.Termination,
    checkpoints: Checkpoints,
    told: Progress,
    profiler: profiling.NoProfiler,
    watchdog: guards.Watchdog,
    log_every: int,
) -> TrainState:
    guard, previous, start, last = guards.FiniteGuard(), None, told.start, told.total
    steps = profiler.steps(told.watch(batches), start + 1)
    with watchdog, told, contextlib.closing(batches), contextlib.closing(steps):
        for step, batch in steps:
            state, loss, norm, metrics = step_function(state, batch)
            guard.watch(step, loss, norm)
            told.add(metrics)
            profiler.watch(loss, norm)
            jax.block_until_ready(previous)
            previous = loss
            watchdog.beat()
            ending = termination.reached(step) or step == last
            reporting = ending or step == start + 1 or step % log_every == 0
            if reporting:
                guard.check(checkpoints.last_good)
                means = told.report(step)
            due = checkpoints.due(step) or (reporting and checkpoints.due_by_time())
            if ending or due:
                guard.check(checkpoints.last_good, state.params)
                checkpoints.save(state, means)
            if ending:
                break
    return state


def _restore(
    checkpoints: Checkpoints,
    target: TrainState,
    model_dir: Path,
    total_steps: int,
    extra_files: Mapping[str, bytes],
) -> TrainState | None:
    if checkpoints.steps() or t5x_steps(model_dir):
        folder.require_same_files(model_dir, extra_files)
    state = checkpoints.restore_latest(target) or t5x_checkpoints.restore_latest(model_dir, target)
    step = 0 if state is None else int(state.step)
    guards.require_not_behind(total_steps, step, model_dir)
    if step < total_steps:
        write = lambda: folder.write_files(model_dir, extra_files)  # noqa: E731
        hosts.first_does("write the run's files", write)
    return state
