"""Trains a tiny SimVLM under many layouts on 8 CPU devices; prints the losses of each as JSON.

With `initial_params` of random numbers, so that nothing is zero, and every parameter cut that can
be (`fewest_cut=1`).
"""

import json
import os

os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=8"

import jax

jax.config.update("jax_disable_most_optimizations", True)

from simvlm_jax.partitioning import Partitioner, describe  # noqa: E402
from simvlm_jax.planning.job import Shapes  # noqa: E402
from simvlm_jax.testing import (  # noqa: E402
    random_parameters,
    tiny_classifier,
    tiny_config,
    tiny_groups,
    tiny_labelled_groups,
    tiny_model,
)
from simvlm_jax.training import optimizers  # noqa: E402
from simvlm_jax.training.state import abstract_state, create_state, lay_out  # noqa: E402
from simvlm_jax.training.step import compile_step  # noqa: E402

GROUPS, STEPS = 8, 3
# With every kind of layer somewhere, and a mesh of 2 x 2 x 2.
RUNS = {
    "paper": (
        {"scan_blocks": True, "conv_layers": (1, 3)},
        ("data", "fsdp", "tensor", "fsdp+tensor"),
    ),
    "t5_decoder_only": (
        {"decoder_only": True, "decoder_style": "t5", "remat_policy": "full"},
        ("fsdp+tensor",),
    ),
    "classifier": (
        {
            "conv_layers": (),
            "image_size": (8, 12),
            "patch_size": 4,
            "encoder_layers": 1,
            "decoder_layers": 1,
        },
        ("data", "fsdp", "tensor", "fsdp+tensor"),
    ),
}
SIZES = {"fsdp+tensor": {"fsdp": 2, "tensor": 2}}


def make(run, config) -> tuple:
    """A model, its batch and what is frozen."""
    if run == "classifier":  # of two images, so without documents; five classes, an odd number
        model = tiny_classifier(config, images=2, objective="sigmoid", nominal_batch_size=GROUPS)
        return model, tiny_labelled_groups(model, GROUPS, 2, 0), ["image_.*", "token_embedding"]
    model = tiny_model(config, nominal_batch_size=GROUPS)
    return model, tiny_groups(config, GROUPS, pairs=2, documents=1), []


def losses(run, config, partitioner, devices) -> dict:
    """The mesh, the losses and norms of some steps, and how many parameters are cut."""
    model, batch, frozen = make(run, config)
    optimizer = optimizers.adamw(1e-2, total_steps=STEPS, ema_decay=0.9, frozen=frozen)
    shapes = Shapes(
        {name: leaf.shape for name, leaf in batch.items()},
        {name: leaf.dtype for name, leaf in batch.items()},
    )
    layout = lay_out(model, shapes, partitioner, devices)
    target = abstract_state(model, optimizer, shapes, layout)
    start = random_parameters(config, model=model)
    state = create_state(model, optimizer, shapes, target, 0, start)
    step = compile_step(model, optimizer, target, layout, seed=0)
    found = []
    for _ in range(STEPS):
        state, loss, norm, _ = step(state, jax.device_put(batch, layout.by_group))
        found.append((float(loss), float(norm)))
    leaves = jax.tree.leaves(state.params)
    cut = sum(not leaf.sharding.is_fully_replicated for leaf in leaves)
    same = jax.tree.map(lambda a, b: a.sharding == b.sharding, state.params, target.params)
    assert all(jax.tree.leaves(same)), "a step moves the parameters"
    head = list(state.params["classifier"]["kernel"].sharding.spec) if frozen else []
    result = {"mesh": describe(layout.sizes), "losses": found, "cut": cut, "head": head}
    return result | {"parameters": len(leaves)}


def main() -> None:
    results = {}
    for run, (changes, strategies) in RUNS.items():
        config = tiny_config(**changes)
        results[f"{run}/one"] = losses(run, config, Partitioner(), jax.devices()[:1])
        for strategy in strategies:
            partitioner = Partitioner(strategy, fewest_cut=1, **SIZES.get(strategy, {}))
            results[f"{run}/{strategy}"] = losses(run, config, partitioner, jax.devices())
    print(json.dumps(results))


if __name__ == "__main__":
    main()
