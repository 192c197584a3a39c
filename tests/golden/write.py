"""Writes the tables of parameters and of their partitioning that tests compare with.

    python -m tests.golden.write

A change of the network, or of where its parameters lie, shows as a change of these files in a diff.
"""

import math
from pathlib import Path

from jax.sharding import AbstractMesh, NamedSharding

from simvlm_jax import configuration
from simvlm_jax.models.config import SimVLMConfig
from simvlm_jax.models.tables import parameter_rows, parameter_table
from simvlm_jax.partitioning import AXES, Layout, Partitioner, cut_sizes, describe

FOLDER = Path(__file__).parent / "parameters"
PARTITIONING = Path(__file__).parent / "partitioning"
GROUPS = 512
# Devices, slices, and the axes of a slice's network.
MACHINES = {
    "v3:16x32": (1024, 1, (16, 32)),
    "v4:8x8x8": (512, 1, (8, 8, 8)),
    "v5e:16x16": (256, 1, (16, 16)),
    "2 x v5e:16x16": (512, 2, (16, 16)),
    "h100:4x8": (32, 4, ()),
}
NETWORKS = {
    "tiny": ["models/tiny.gin"],
    "small": ["models/small.gin"],
    "base": ["models/base.gin"],
    "base_t5_style": ["models/base.gin", "models/t5_style.gin"],
    "base_decoder_only": ["models/base.gin", "ablations/decoder_only.gin"],
    "large": ["models/large.gin"],
    "huge": ["models/huge.gin"],
}


def configuration_of(name: str) -> SimVLMConfig:
    """The network that the gin files of one entry describe."""
    configuration.load(NETWORKS[name])
    return configuration.value("MODEL").config


def layout_of(rows: list, machine: str, strategy: str) -> Layout:
    """The layout that is chosen for a network's parameters on a machine."""
    devices, slices, torus = MACHINES[machine]
    partitioner = Partitioner(strategy)
    widths = {"fsdp": 0, "tensor": 0}
    for row in rows:
        for axis, size in cut_sizes(row.axes, row.shape, partitioner.fewest_cut):
            widths[axis] = math.gcd(widths[axis], size)
    sizes = partitioner.choose_sizes(devices, slices, GROUPS, widths, torus)
    return Layout(AbstractMesh(tuple(sizes[axis] for axis in AXES), AXES))


def partitioning_table(name: str) -> str:
    """The chosen meshes, then per parameter what each machine's devices hold of it."""
    rows = parameter_rows(configuration_of(name))
    layouts = {}
    for machine in MACHINES:
        strategy = "fsdp" if MACHINES[machine][0] <= GROUPS else "fsdp+tensor"
        layouts[machine] = layout_of(rows, machine, strategy)
    lines = [f"{machine}: {describe(layout.sizes)}" for machine, layout in layouts.items()]
    lines.append("parameter | whole | on a device of each machine, and along which axes it is cut")
    for row in rows:
        held = [row.path, _product(row.shape)]
        for layout in layouts.values():
            spec = layout.spec(row.axes, row.shape)
            shard = NamedSharding(layout.mesh, spec).shard_shape(row.shape)
            along = " ".join(
                axis if isinstance(axis, str) else "+".join(axis) for axis in spec if axis
            )
            held.append(f"{_product(shard)} {along}".rstrip())
        lines.append(" | ".join(held))
    return "\n".join(lines) + "\n"


def _product(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))


def main() -> None:
    for folder, table in (
        (FOLDER, lambda name: parameter_table(configuration_of(name))),
        (PARTITIONING, partitioning_table),
    ):
        folder.mkdir(exist_ok=True)
        for name in NETWORKS:
            path = folder / f"{name}.txt"
            path.write_text(table(name), "utf-8")
            print(f"{path}: {path.read_text('utf-8').splitlines()[-1]}")


if __name__ == "__main__":
    main()
