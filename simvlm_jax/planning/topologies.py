"""Devices of a described machine, without the machine: TPU slices, GPU hosts, CPU devices.

Names are shapes, as "v5e:16x16" (TPU chips), "h100:4x8" (hosts x GPUs) and "cpu:8"; marketing
names count cores for some TPUs and chips for others.
"""

import dataclasses
import math
import os
import re
from typing import Any

from simvlm_jax.errors import UserError
from simvlm_jax.planning.chips import CHIPS, Chip

_NAME = re.compile(r"(cpu|[a-z]\w*):([1-9][0-9]{0,5}(?:x[1-9][0-9]{0,5}){0,2})")
MOST_CHIPS = 1 << 16
# One logical device a chip, as Cloud TPU VMs start these.
_MEGACORE = ("v4", "v5p")
# libtpu asks a metadata server about the machine, and warns where there is none.
_NO_MACHINE = {
    "JAX_PLATFORMS": "cpu",
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",  # compiling takes no chip, so it may run beside others
}


@dataclasses.dataclass(frozen=True)
class Topology:
    """A machine as the compiler sees it.

    Attributes:
      name: as it was asked for, such as "v5e:16x16".
      chip: its kind, or None for CPU.
      shape: chips along each axis of a slice's network; hosts and GPUs; CPU devices.
      slices: how many slices or GPU hosts.
      devices: JAX devices to make a mesh of.
    """

    name: str
    chip: Chip | None
    shape: tuple[int, ...]
    slices: int
    devices: tuple[Any, ...]

    @property
    def chips(self) -> int:
        """How many chips the machine has."""
        return len(self.devices) // (self.chip.devices if self.chip else 1)

    @property
    def label(self) -> str:
        """For people: "v4:8x8x8 (512 chips)"."""
        if self.chip is None:
            return f"{self.name} ({len(self.devices)} CPU devices)"
        slices = f"{self.slices} slices of " if self.slices > 1 and self.is_tpu else ""
        return f"{slices}{self.name} ({self.chips} {'chips' if self.is_tpu else 'GPUs'})"

    @property
    def is_tpu(self) -> bool:
        """Whether the chips are TPUs."""
        return self.chip is not None and self.chip.name.startswith("v")


def parse(name: str) -> tuple[str, tuple[int, ...]]:
    """Splits "v5e:16x16" into "v5e" and (16, 16).

    Raises:
      UserError: it is no name of a topology, or of an unknown chip.
    """
    match = _NAME.fullmatch(name)
    known = ["cpu", *CHIPS]
    if not match or match[1] not in known:
        raise UserError(
            f"--topology={name} is not a topology: write KIND:SHAPE, with a kind of "
            f"{', '.join(known)}, such as v5e:16x16, v4:8x8x8, h100:4x8 (hosts x GPUs) or cpu:8."
        )
    shape = tuple(int(size) for size in match[2].split("x"))
    if math.prod(shape) > MOST_CHIPS:
        raise UserError(
            f"--topology={name} has more than {MOST_CHIPS} chips: give a smaller shape."
        )
    return match[1], shape


def prepare(name: str) -> None:
    """Sets the environment for `open_topology`; to be called before JAX looks for devices."""
    kind, shape = parse(name)
    os.environ.update(_NO_MACHINE)
    flag = {
        "cpu": f"--xla_force_host_platform_device_count={math.prod(shape)}",
        # Kernels of Triton need trials on a GPU to be tiled; cuBLAS is called instead.
        "h100": "--xla_gpu_enable_triton_gemm=false",
    }.get(kind, "")
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {flag}".strip()


def open_topology(name: str, slices: int = 1) -> Topology:
    """Describes a machine.

    Args:
      name: see the module.
      slices: TPU slices joined by the data center's network.

    Raises:
      UserError: an unknown name, a shape that its kind does not come in, or no compiler for it.
    """
    kind, shape = parse(name)
    if slices > 1 and not kind.startswith("v"):
        raise UserError(f"--slices={slices} is for TPU; {name} has none.")
    if kind == "cpu":
        return Topology(name, None, shape, 1, _cpu_devices(math.prod(shape)))
    chip = CHIPS[kind]
    if kind == "h100":
        from simvlm_jax.planning.gpus import describe_gpus

        if len(shape) != 2:
            raise UserError(f"--topology={name} must be hosts x GPUs, such as {kind}:4x8.")
        return Topology(name, chip, shape, shape[0], tuple(describe_gpus(name, shape)))
    return Topology(name, chip, shape, slices, _tpu_devices(name, slices))


def _cpu_devices(count: int) -> tuple[Any, ...]:
    import jax

    found = jax.devices("cpu")
    if len(found) < count:
        raise UserError(
            f"--topology=cpu:{count} needs {count} CPU devices, and this process has {len(found)}: "
            f"set XLA_FLAGS=--xla_force_host_platform_device_count={count}."
        )
    return tuple(found[:count])


def _tpu_devices(name: str, slices: int) -> tuple[Any, ...]:
    from jax.experimental import topologies

    try:
        import libtpu  # noqa: F401 - only whether it is there
    except ImportError:
        raise UserError(
            f"Compiling for {name} needs TPU's compiler, though no TPU: pip install "
            "'libtpu==0.0.42.1', or the extra [tpu]; --topology=cpu:8 does without."
        ) from None
    options: dict[str, Any] = {}
    if name.split(":")[0] in _MEGACORE:
        options["chip_config_name"] = "megacore"
    if slices > 1:
        options["num_slices"] = slices
    if math.prod(parse(name)[1]) == 1:
        options["chips_per_host_bounds"] = (1, 1, 1)
    try:
        topology = topologies.get_topology_desc(platform="tpu", topology_name=name, **options)
    except Exception as error:  # libtpu raises JaxRuntimeError, and bare exceptions
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"TPU's compiler knows no topology {name}: {reason}") from None
    return tuple(topology.devices)
