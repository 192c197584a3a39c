"""A tiny model and a tiny stream that obey the protocols of the loop, and a run of them.

As a program it makes runs in a process of its own: `python standin.py '[{"model_dir": ...}]'`, with
the arguments of `run`; it prints the number of devices and the imported modules.
"""

import json
import os
import resource
import signal
import sys
from pathlib import Path

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from clu import metrics
from flax.linen.partitioning import AxisMetadata

from simvlm_jax.errors import UserError
from simvlm_jax.partitioning import Partitioner
from simvlm_jax.training import checkpoints, loop, optimizers, reading
from simvlm_jax.training.keeping import KeepRules

GROUPS, PAIRS, FEATURES, HIDDEN, CLASSES = 8, 2, 8, 8, 4


@flax.struct.dataclass
class Count(metrics.Metric):
    total: jax.Array

    def merge(self, other):
        return Count(self.total + other.total)

    def compute(self):
        return self.total


def same(left, right):
    """Bit for bit, every leaf."""
    jax.tree.map(np.testing.assert_array_equal, left, right)


class Model:
    """Embedding, one hidden layer with dropout, softmax; the loss is a sum over a constant."""

    def __init__(self, dropout=0.5, hidden=HIDDEN):
        self.dropout, self.hidden = dropout, hidden

    def get_initial_variables(self, rng, input_shapes, input_types=None):
        table, hidden, head = jnp.split(
            jax.random.uniform(rng, (FEATURES + self.hidden + CLASSES, self.hidden), minval=-2.0),
            [FEATURES, FEATURES + self.hidden],
        )
        params = {
            "table": {"embedding": table},
            "hidden": {"kernel": hidden, "bias": jnp.zeros(self.hidden)},
            "head": {"kernel": head.T},
        }
        axes = {
            "table": {"embedding_axes": AxisMetadata(("vocab", "embed"))},
            "hidden": {
                "kernel_axes": AxisMetadata(("embed", "mlp")),
                "bias_axes": AxisMetadata(("mlp",)),
            },
            "head": {"kernel_axes": AxisMetadata(("embed", "vocab"))},
        }
        return {"params": params, "params_axes": axes}

    def loss_fn(self, params, batch, dropout_rng):
        x = params["table"]["embedding"][batch["inputs"]]
        x = jax.nn.relu(x @ params["hidden"]["kernel"] + params["hidden"]["bias"])
        if dropout_rng is not None and self.dropout:
            x = jnp.where(jax.random.bernoulli(dropout_rng, self.dropout, x.shape), x, 0.0)
        logits = jax.nn.log_softmax(x @ params["head"]["kernel"])
        losses = -jnp.take_along_axis(logits, batch["targets"][..., None], -1)[..., 0]
        losses = losses * batch["weights"]
        hits = (logits.argmax(-1) == batch["targets"]).astype(jnp.float32)
        count = jnp.float32(losses.size)
        return losses.sum() / losses.size, {
            "loss": metrics.Average(total=losses.sum(), count=count),
            "accuracy": metrics.Average(total=hits.sum(), count=count),
            "examples": Count(count),
            "tokens": Count(3 * count),
        }

    def train_flops(self, input_shapes):
        return 6.0 * np.prod(input_shapes["inputs"]) * self.hidden * (self.hidden + CLASSES)


class Stream:
    """Batches that depend on the step alone; batch `poison_at` gives a loss that is no number,
    and the process sends itself `signal_number` while it makes batch `signal_at`."""

    def __init__(self, groups=GROUPS, poison_at=None, signal_at=None, signal_number=0, end=10**9):
        self.groups, self.poison_at, self.end = groups, poison_at, end
        self.signal_at, self.signal_number = signal_at, signal_number

    @property
    def input_shapes(self):
        return {name: (self.groups, PAIRS) for name in ("inputs", "targets", "weights")}

    @property
    def input_types(self):
        return {
            "inputs": np.dtype("int32"),
            "targets": np.dtype("int32"),
            "weights": np.dtype("float32"),
        }

    def batch(self, step):
        generator = np.random.default_rng([7, step])
        inputs = generator.integers(0, FEATURES, (self.groups, PAIRS), np.int32)
        weights = np.ones((self.groups, PAIRS), np.float32)
        if step == self.poison_at:
            weights[0, 0] = np.nan
        return {"inputs": inputs, "targets": inputs % CLASSES, "weights": weights}

    def report(self, step):
        return {}

    def batches(self, start_step, groups=None):
        groups = slice(None) if groups is None else groups
        for step in range(start_step, self.end):
            if step == self.signal_at:
                os.kill(os.getpid(), self.signal_number)
            yield {name: array[groups] for name, array in self.batch(step).items()}


def run(model_dir, total_steps=12, stream=None, model=None, optimizer=None, **settings):
    """Trains the stand-in; `stream`, `optimizer` and `keep` are the settings of either."""
    settings["keep"] = KeepRules(**settings.get("keep", {}))
    settings = {"checkpoint_every": 4, "log_every": 3, "tensorboard": False, **settings}
    optimizer = {"clip_norm": 1.0, "ema_decay": 0.9, "peak_learning_rate": 0.1, **(optimizer or {})}
    return loop.train(
        Model(**(model or {})),
        optimizers.adamw(total_steps=optimizer.pop("schedule", 12), **optimizer),
        Stream(**(stream or {})),
        model_dir,
        total_steps,
        **settings,
    )


def losses(model_dir):
    lines = (Path(model_dir) / "losses.jsonl").read_text().splitlines()
    return {line["step"]: line["loss"] for line in map(json.loads, lines)}


def kill_within_save(step):
    """Lets the process kill itself once step's checkpoint is written and not yet renamed."""
    from orbax.checkpoint._src.path.atomicity import AtomicRenameTemporaryPath as Temporary

    finalize = Temporary.finalize

    def kill_or_finalize(self, *args, **kwargs):
        if self.get_final().name == str(step):
            os.kill(os.getpid(), signal.SIGKILL)
        return finalize(self, *args, **kwargs)

    Temporary.finalize = kill_or_finalize


def fill_disk_after(saves):
    """Lets the process write small files only, once it has made so many saves."""
    save, made = checkpoints.Checkpoints.save, []

    def save_or_not(self, *args, **kwargs):
        if len(made) == saves:
            self.last_good()  # those before are written
            resource.setrlimit(resource.RLIMIT_FSIZE, (64 * 1024, resource.RLIM_INFINITY))
        made.append(save(self, *args, **kwargs))

    checkpoints.Checkpoints.save = save_or_not


def main():
    """Makes the runs, and ends as `simvlm train` does."""
    for arguments in json.loads(sys.argv[1]):
        if "kill_within_save" in arguments:
            kill_within_save(arguments.pop("kill_within_save"))
        if "fill_disk_after" in arguments:
            fill_disk_after(arguments.pop("fill_disk_after"))
        if arguments.pop("shard", False):
            arguments["partitioner"] = Partitioner("fsdp", fewest_cut=1)
        run(**arguments)
        reading.restore_params(arguments["model_dir"], ema=True)
    print(json.dumps({"devices": jax.local_device_count(), "modules": sorted(sys.modules)}))


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(str(error))
