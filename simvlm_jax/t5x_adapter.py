"""What T5X needs beside the model's own protocol: our stream, a trainer that ends well, rules.

This is the only module that imports T5X, and only the gin files under gin/t5x name it. T5X has
its own loop, checkpoints, evaluation and inference; it calls the model object as it is.
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any

import flax.core
import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import seqio
import tensorflow as tf
from clu.data.dataset_iterator import ArraySpec, DatasetIterator
from etils import epath

import gin
from simvlm_jax import hosts, partitioning
from simvlm_jax.data.streams import GroupStream, host_groups
from simvlm_jax.errors import UserError
from simvlm_jax.sharing import Share
from simvlm_jax.training import digests, fingerprint, opening, reading, t5x_checkpoints, t5x_format
from simvlm_jax.training.checkpoints import ManifestHandler, ManifestSave
from simvlm_jax.training.folder import model_files
from simvlm_jax.training.guards import FiniteGuard, Termination
from t5x import adafactor, checkpoints, gin_utils, trainer, utils

STEPS_BETWEEN_CHECKS = 100


class StreamIterator(DatasetIterator):
    """A `GroupStream` from one step on. It has no state to save: the step is its state."""

    def __init__(self, stream: GroupStream, start_step: int, groups: Sequence[int]) -> None:
        """Starts the stream.

        Args:
          stream: of the batches.
          start_step: the first step to give.
          groups: this host's part of every batch.
        """
        self._stream, self._start_step, self._groups = stream, start_step, groups
        types = stream.input_types
        self._element_spec = {
            name: ArraySpec(types[name], (len(groups), *rest))
            for name, (_, *rest) in stream.input_shapes.items()
        }
        self.reset()

    def __next__(self) -> dict[str, Any]:
        """This host's part of the next batch, arrays [groups, n, ...]."""
        return next(self._batches)

    def reset(self) -> None:
        """Goes back to the first step."""
        self._batches = self._stream.batches(self._start_step, self._groups)

    @property
    def element_spec(self) -> dict[str, ArraySpec]:
        """Shape and dtype of this host's part of every array."""
        return self._element_spec


def get_dataset(
    cfg: utils.DatasetConfig,
    shard_id: int,
    num_shards: int,
    feature_converter_cls: Callable[..., Any],
    num_epochs: int | None = None,
    continue_from_last_checkpoint: bool = False,
    *,
    stream: Callable[..., GroupStream],
    model_dir: str,
) -> StreamIterator:
    """T5X's `get_dataset_fn`: batches in groups, from the step its checkpoint will restore.

    Args:
      cfg: only its batch size counts, the number of groups G.
      shard_id: this host.
      num_shards: hosts that read different data.
      feature_converter_cls: not needed, the stream has its own.
      num_epochs: not needed, training data has no end.
      continue_from_last_checkpoint: not needed, the step says it.
      stream: makes the stream; gin binds its other arguments.
      model_dir: where T5X keeps the run's checkpoints.

    Raises:
      UserError: in every process, where one has other code, configuration or data, or no
        checkpoint is whole.
    """
    del feature_converter_cls, num_epochs, continue_from_last_checkpoint
    sys.excepthook = end_process
    whole = stream(groups=cfg.batch_size)
    same = fingerprint.require_same(gin.config_str(), whole.fingerprint())
    if hosts.is_first():
        print(same, file=sys.stderr)
    whole.keep_ledger(model_dir)
    t5x_checkpoints.set_damaged_aside(model_dir)
    start_step = checkpoints.latest_step(model_dir) or 0
    return StreamIterator(whole, start_step, host_groups(cfg.batch_size, shard_id, num_shards))


class VerifiedManager(checkpoints.OrbaxCheckpointManagerInterface._CheckpointManagerImpl):
    """T5X's manager of checkpoints; each has a manifest, and what is read is what was written."""

    def __init__(self, directory: str, options: Any, item_handlers: Mapping[str, Any]) -> None:
        """Takes what T5X gives it."""
        handlers = {**item_handlers, t5x_format.MANIFEST: ManifestHandler()}
        super().__init__(directory=directory, options=options, item_handlers=handlers)

    def save(self, step: int, args: Any, **rest: Any) -> bool:
        """Saves T5X's items, and with them the digests of what is written."""
        state = args[t5x_format.STATE]
        written = jax.tree.map(
            lambda array, how: array if how.dtype is None else jnp.asarray(array, how.dtype),
            state.item,
            state.save_args,
        )
        jax.block_until_ready(written)  # digests.begun_manifest says why, of a step's program too
        begun = {t5x_format.STATE: digests.begun_manifest(written)}
        items = {**args, t5x_format.MANIFEST: ManifestSave(begun)}
        return super().save(step, args=ocp.args.Composite(**items), **rest)

    def restore(self, step: int, args: Any, directory: str) -> Any:
        """Reads T5X's items; arrays that it did not ask to be converted are verified.

        Raises:
          DamagedError: in all processes, if they are not those that were written.
        """
        restored = super().restore(step, args=args, directory=directory)
        folder = t5x_format.folder(directory, step).parent
        if not t5x_format.is_described(folder):
            return restored
        manifest = reading.agree(
            "manifest", lambda: reading.read_manifest(folder, t5x_format.ITEMS)[t5x_format.STATE]
        )
        tree = restored[t5x_format.STATE]
        same = {
            path: array
            for path, array in digests.paths(tree).items()
            if path in manifest and np.dtype(array.dtype).name == manifest[path]["dtype"]
        }
        reading.verify(folder, same, {path: manifest[path] for path in same})
        return restored


# A setting would not do: to resume, T5X makes a configuration of its own, with its own class.
checkpoints.OrbaxCheckpointManagerInterface._CheckpointManagerImpl = VerifiedManager


def end_process(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    """A `sys.excepthook` under which no process waits for others that wait for it.

    Python would end one that failed only once all the others came to their end. After SIGTERM
    they do; else this one leaves at once. Bad input is said in its sentence, with our exit code.
    """
    if isinstance(error, UserError):
        print(str(error).split("\n")[0], file=sys.stderr)  # gin adds where it was
        hosts.leave(error.exit_code)
    sys.__excepthook__(kind, error, trace)
    if hosts.count() > 1 and not isinstance(error, trainer.PreemptionError):
        hosts.leave(1)


class Trainer(trainer.Trainer):
    """T5X's trainer; SIGTERM ends it with a checkpoint, a loss that is no number without one.

    T5X saves when a `PreemptionError` is raised, but nothing in its open code raises one, and in
    the middle of its loop `train_state` holds buffers that the step was given to overwrite. So
    every new state is stored at once, and the error is raised between two steps.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Takes T5X's own arguments and listens for SIGTERM."""
        super().__init__(*args, **kwargs)
        self._guard = FiniteGuard()
        self._termination = Termination()
        # With jax.distributed, JAX listens for all hosts together. A host that stopped by itself
        # would leave the others waiting for it.
        if not jax.distributed.is_initialized() and jax.process_count() == 1:
            self._termination.__enter__()

    def compile_train(self, batch: Mapping[str, jax.Array]) -> None:
        """Compiles a step that also stores its state, and looks whether it should run at all."""
        shapes = {name: array.shape for name, array in batch.items()}
        first = next(iter(batch.values()))
        share = Share(first.sharding, first.shape[0])
        opening.tell(share, self._model.train_flops(shapes))
        super().compile_train(batch)
        compiled = self._compiled_train_step
        step = int(utils.get_local_data(self.train_state.step))

        def run(state: Any, batch: Mapping[str, jax.Array]) -> tuple[Any, Mapping[str, Any]]:
            nonlocal step
            if self._should_stop(step):
                raise trainer.PreemptionError(f"SIGTERM after step {step}.")
            state, metrics = compiled(state, batch)
            step += 1
            self.train_state = state
            self._guard.watch(step, metrics["loss"].total)
            if step % STEPS_BETWEEN_CHECKS == 0:
                self._guard.check(self._last_good)
            return state, metrics

        self._compiled_train_step = run

    def train(self, *args: Any, **kwargs: Any) -> trainer.ArrayMapFuture:
        """Runs some steps; T5X may save right after, so all their losses are checked here.

        Raises:
          NonFiniteError: a loss or a parameter became infinite or not a number.
          PreemptionError: SIGTERM came.
        """
        summary = super().train(*args, **kwargs)
        self._guard.check(self._last_good, self.train_state.params)
        return summary

    @staticmethod
    def _last_good() -> str:
        return "the last good checkpoint is the newest in MODEL_DIR"

    def _should_stop(self, step: int) -> bool:
        if jax.distributed.is_initialized():
            return jax.experimental.multihost_utils.reached_preemption_sync_point(step)
        return self._termination.reached(step)


class JSONLogger(seqio.JSONLogger):
    """seqio's log of every prediction, without the encoded images it would repeat each time."""

    def __call__(
        self,
        task_name: str,
        step: int | None,
        metrics: Mapping[str, Any],
        dataset: tf.data.Dataset | None,
        inferences: Mapping[str, Any] | None,
        targets: list | None,
    ) -> None:
        """Takes seqio's arguments."""
        if dataset is not None:
            names = set(dataset.element_spec) - {"image"}
            dataset = dataset.map(lambda example: {name: example[name] for name in names})
        super().__call__(task_name, step, metrics, dataset, inferences, targets)


def describe_run(model_dir: str, summary_writer: Any, step: int, model: Any) -> None:
    """T5X's `summarize_config_fn`; adds the files that `simvlm caption` and `evaluate` need."""
    gin_utils.summarize_gin_config(model_dir, summary_writer, step)
    if jax.process_index() == 0:
        for name, content in model_files(model).items():
            (epath.Path(model_dir) / name).write_bytes(content)


def parameters_only(
    state_dict: Mapping[str, Any],
    target_state_dict: Mapping[str, Any],
    *,
    is_resuming: bool = False,
) -> Mapping[str, Any]:
    """A state transformation for finetuning: the step and the optimizer begin anew.

    T5X would carry both over, and the optimizer's schedule would go on where pretraining ended:
    at a learning rate of 0. A resumed finetuning run keeps everything.
    """
    del target_state_dict
    return state_dict if is_resuming else {"target": state_dict["target"]}


def axis_rules() -> list[tuple[str, str | None]]:
    """Rules to add to T5X's own (`standard_logical_axis_rules`)."""
    return list(partitioning.OWN_AXIS_RULES)


def factor_rules() -> Mapping[str, Any]:
    """How T5X's Adafactor factors each axis: its own rules, and those of the image side.

    A window's positions are batch dimensions: each has a matrix of its own. Tables over offsets
    or positions are not factored.
    """
    dim = adafactor.FactorDim
    return flax.core.freeze(
        {
            **adafactor.standard_logical_factor_rules(),
            "abspos_buckets": dim.NONE,
            "relpos_heads": dim.NONE,
            "relpos_rows": dim.NONE,
            "relpos_columns": dim.NONE,
            "conv_height": dim.BATCH,
            "conv_width": dim.BATCH,
            "conv_in": dim.COLUMN,
            "conv_out": dim.ROW,
            "classes": dim.ROW,  # of a kernel whose inputs are "mlp", a column there
        }
    )
