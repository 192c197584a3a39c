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
"""

import contextlib
import sys
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import jax
import optax

from simvlm_jax.partitioning import Partitioner, describe
from simvlm_jax.training import devices, folder, profiling, t5x_checkpoints, t5x_format
from simvlm_jax.training.checkpoints import Checkpoints
from simvlm_jax.training.guards import FiniteGuard, Termination, require_counts, require_not_behind
from simvlm_jax.training.keeping import THREE_NEWEST, KeepRules
from simvlm_jax.training.progress import Progress
from simvlm_jax.training.state import TrainState, abstract_state, create_state, lay_out
from simvlm_jax.training.step import compile_step


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
) -> TrainState:
    """Trains to `total_steps` in a folder, from where its newest checkpoint stands.

    Bit for bit, a resumed run is the uninterrupted one. A finished folder only returns its state.

    Args:
        model: Offers `loss_fn`, `get_initial_variables` and `train_flops`.
        optimizer: Any optax transform.
        stream: Offers `batches(start_step)`, `input_shapes`, `input_types` and `report()`.
        model_dir: The run's folder.
        total_steps: Batches in the whole run, the resumed part included.
        seed: Of the initial parameters and of dropout.
        checkpoint_every: Steps between checkpoints; the last step always has one.
        log_every: Steps between reports; a start's first step and the last step always have one.
        keep: Which checkpoints stay.
        checkpoint_minutes: Saves too when so much time went by since the last save, at log points.
        extra_files: Files for the folder by name; `folder.FIXED_FILES` must not change later.
        initial_params: Start from these instead of the model's own initial parameters.
        partitioner: Lays everything out on the devices; by default each has all parameters.
        tensorboard: Writes TensorBoard events too.
        profile: Traces from the first of these steps to before the second, counted from 1.

    Raises:
        UserError: If numbers, devices, the folder, the disk or a loss are not as they must be.
        SystemExit: With code 0, after SIGTERM.
    """
    require_counts(total_steps, checkpoint_every=checkpoint_every, log_every=log_every)
    profiler = profiling.profiler(profile, model_dir, total_steps)
    layout = lay_out(model, stream, partitioner or Partitioner())
    print(f"mesh {describe(layout.sizes)}", file=sys.stderr)
    target = abstract_state(model, optimizer, stream, layout)
    due = checkpoint_every, checkpoint_minutes
    with Termination() as termination, Checkpoints(model_dir, keep, *due) as checkpoints, profiler:
        state = _restore(checkpoints, target, Path(model_dir), total_steps, extra_files or {})
        state = state or create_state(model, optimizer, stream, target, seed, initial_params)
        if (start := int(state.step)) < total_steps:
            step_function = compile_step(model, optimizer, target, layout, seed)
            flops = model.train_flops(stream.input_shapes)
            batches = devices.prefetch(stream.batches(start), total_steps - start, layout.by_group)
            told = Progress(model_dir, start, total_steps, flops, tensorboard, stream.report)
            with told as progress, contextlib.closing(batches):
                guards = termination, checkpoints, progress, profiler
                state = _run(step_function, state, batches, *guards, log_every)
    return state


def _run(
    step_function: Callable,
    state: TrainState,
    batches: Iterator[Future[dict]],
    termination: Termination,
    checkpoints: Checkpoints,
    progress: Progress,
    profiler: profiling.NoProfiler,
    log_every: int,
) -> TrainState:
    guard, previous, start, last = FiniteGuard(), None, progress.start, progress.total
    with contextlib.closing(profiler.steps(progress.watch(batches), start + 1)) as steps:
        for step, batch in steps:
            state, loss, norm, metrics = step_function(state, batch)
            guard.watch(step, loss, norm)
            progress.add(metrics)
            profiler.watch(loss, norm)
            jax.block_until_ready(previous)
            previous = loss
            ending = step == last or termination.requested
            reporting = ending or step == start + 1 or step % log_every == 0
            if reporting:
                guard.check(checkpoints.last_good)
                progress.report(step)
            due = checkpoints.due(step) or (reporting and checkpoints.due_by_time())
            if ending or due:
                guard.check(checkpoints.last_good, state.params)
                checkpoints.save(state, progress.values)
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
    if checkpoints.steps() or t5x_format.steps(model_dir):
        folder.require_same_files(model_dir, extra_files)
    state = checkpoints.restore_latest(target) or t5x_checkpoints.restore_latest(model_dir, target)
    step = 0 if state is None else int(state.step)
    require_not_behind(total_steps, step, model_dir)
    if step < total_steps:
        folder.write_files(model_dir, extra_files)
    return state
