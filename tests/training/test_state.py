import jax
import numpy as np
import optax
import pytest
from jax.sharding import AbstractMesh, PartitionSpec

from simvlm_jax.partitioning import AXES, Layout, Partitioner
from simvlm_jax.training import optimizers
from simvlm_jax.training.state import abstract_state, create_state, lay_out
from standin import Model, Stream

HERE = lay_out(Model(), Stream(), Partitioner(), jax.devices()[:1])


def described(tree):
    return jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype, leaf.sharding), tree)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_the_arrays_are_what_was_worked_out(accumulate):
    optimizer = optimizers.adamw(total_steps=4, ema_decay=0.9, accumulate=accumulate)
    target = abstract_state(Model(), optimizer, Stream(), HERE)
    state = create_state(Model(), optimizer, Stream(), target, seed=3)
    assert described(state) == described(target)
    jax.tree.map(
        np.testing.assert_array_equal, optimizers.ema_params(state.opt_state), state.params
    )
    buffers = [leaf.unsafe_buffer_pointer() for leaf in jax.tree.leaves(state)]
    assert len(set(buffers)) == len(buffers)  # or donating the state would fail


@pytest.mark.parametrize("accumulate", [1, 2])
def test_what_mirrors_the_parameters_is_sharded_as_they_are(accumulate):
    optimizer = optimizers.adamw(total_steps=4, ema_decay=0.9, accumulate=accumulate)
    target = abstract_state(Model(), optimizer, Stream(), Layout(AbstractMesh((1, 2, 1), AXES), 1))
    cut, found = PartitionSpec(None, "fsdp"), {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(target):
        name = jax.tree_util.keystr(path[-1:], simple=True)
        found.setdefault((name, leaf.sharding.spec), []).append(leaf)
    # Parameter, two moments, moving average; and the accumulator.
    assert len(found["embedding", cut]) == (4 if accumulate == 1 else 5)
    assert ("embedding", PartitionSpec(None, None)) not in found
    assert {name for name, spec in found if spec == cut} == {"embedding", "kernel"}


def test_any_optax_transform_will_do():
    optimizer = optax.chain(optax.clip(1.0), optax.sgd(0.1, momentum=0.9))
    target = abstract_state(Model(), optimizer, Stream(), HERE)
    state = create_state(Model(), optimizer, Stream(), target, seed=0)
    assert described(state) == described(target)
