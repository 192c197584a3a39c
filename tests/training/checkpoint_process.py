"""One process of several that saves and restores checkpoints of a sharded state.

    python checkpoint_process.py PORT COUNT INDEX '[{"do": "save", ...}, ...]'

It does one thing after the other (see `DOINGS`), and ends as `simvlm train` does. Contents are a
function of the step, so every process checks its own part of what it restores, bit for bit.
"""

import json
import resource
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from simvlm_jax import hosts
from simvlm_jax.errors import UserError
from simvlm_jax.training import checkpoints, reading
from simvlm_jax.training.keeping import KeepRules
from simvlm_jax.training.reading import DamagedError
from simvlm_jax.training.state import TrainState


def contents(step):
    """The state of a step as numpy arrays."""
    draw = np.random.default_rng(step).normal
    params = {
        "kernel": draw(size=(512, 256)).astype(np.float32),
        "head": draw(size=(64, 8)).astype(jnp.bfloat16),
        "bias": draw(size=7).astype(np.float32),
    }
    moments = {name: array * array for name, array in params.items()}
    return TrainState(np.int32(step), params, ({"count": np.int32(3 * step), "mu": moments},))


def sharding(leaf, mesh):
    """The first axis over "fsdp", the second over "tensor"; vectors and scalars everywhere."""
    spec = PartitionSpec("fsdp", "tensor") if leaf.ndim == 2 else PartitionSpec()
    return NamedSharding(mesh, spec)


def mesh_of(fsdp):
    """A mesh of all devices with so many cuts of the first axis."""
    return Mesh(np.array(jax.devices()).reshape(fsdp, -1), ("fsdp", "tensor"))


def placed(step, mesh):
    """The state of a step as global arrays."""
    return jax.tree.map(
        lambda leaf: jax.make_array_from_callback(
            leaf.shape, sharding(leaf, mesh), lambda index: leaf[index]
        ),
        contents(step),
    )


def target(mesh):
    """Shapes, dtypes and shardings of the state."""
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding(leaf, mesh)),
        contents(0),
    )


def require_same(state, expected):
    """Every part that this process holds, bit for bit."""

    def compare(leaf, wanted):
        for shard in leaf.addressable_shards:
            np.testing.assert_array_equal(np.asarray(shard.data), wanted[shard.index])

    jax.tree.map(compare, state, expected)


def save(model_dir, steps, fsdp=1, keep=None, limited=None):
    """Saves some steps; from the second on, process `limited` may write small files only."""
    with checkpoints.Checkpoints(model_dir, KeepRules(**(keep or {}))) as saved:
        for number, step in enumerate(steps):
            if number and hosts.index() == limited:
                saved.last_good()  # the first one is written
                resource.setrlimit(resource.RLIMIT_FSIZE, (64 * 1024, resource.RLIM_INFINITY))
            saved.save(placed(step, mesh_of(fsdp)), {"loss": abs(step - 3)})


def restore(model_dir, step, fsdp=1, unreadable=None):
    """Restores, which must be `step`; process 1 alone cannot read the step `unreadable`."""
    read_items = checkpoints._read_items

    def read_or_not(folder, wanted):
        if hosts.index() == 1 and folder.name == str(unreadable):
            raise DamagedError(f"The checkpoint {folder} is damaged: process 1 says so.")
        return read_items(folder, wanted)

    checkpoints._read_items = read_or_not
    with checkpoints.Checkpoints(model_dir) as saved:
        state = saved.restore_latest(target(mesh_of(fsdp)))
        require_same(state, contents(step))
        if unreadable is not None:
            assert saved.steps() == [step]
            saved.save(placed(unreadable, mesh_of(fsdp)))
    checkpoints._read_items = read_items


def read(model_dir, step, unreadable):
    """Reads the parameters alone, which must be those of `step` on every process."""
    read_params = reading._read_params

    def read_or_not(folder, step):
        if hosts.index() == 1 and step == unreadable:
            raise DamagedError(f"The checkpoint {folder}/{step} is damaged: process 1 says so.")
        return read_params(folder, step)

    reading._read_params = read_or_not
    require_same(reading.restore_params(model_dir), contents(step).params)
    reading._read_params = read_params


def files(model_dir):
    """Makes a run's folder where a file is in the way: all processes have to say so."""
    if hosts.is_first():
        Path(model_dir).write_text("")
    hosts.wait_for_all("the file")
    try:
        checkpoints.Checkpoints(model_dir)
    except UserError as error:
        assert "cannot be made" in str(error)
    else:
        raise AssertionError("it was not refused")


def differ():
    """All are told that they differ, and process 1 takes its time to read it."""
    store = hosts.distributed.global_state.client

    def read_slowly(folder):
        time.sleep(hosts.index())
        return store.key_value_dir_get(folder)

    hosts.distributed.global_state.client = SimpleNamespace(
        key_value_set=store.key_value_set,
        wait_at_barrier=store.wait_at_barrier,
        key_value_dir_get=read_slowly,
    )
    hosts.require_same("numbers", hosts.index(), "make them the same")


DOINGS = {"differ": differ, "save": save, "restore": restore, "read": read, "files": files}


def main():
    """Does what it was told."""
    port, count, index = map(int, sys.argv[1:4])
    if count > 1:
        hosts.join(f"127.0.0.1:{port}", count, index, heartbeat_seconds=5)
    try:
        for settings in json.loads(sys.argv[4]):
            DOINGS[settings.pop("do")](**settings)
    except UserError as error:
        print(error, file=sys.stderr)
        hosts.leave(2)
        sys.exit(2)


if __name__ == "__main__":
    main()
