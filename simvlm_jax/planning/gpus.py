"""GPUs without a GPU: XLA compiles for a described device.

The plugin has no cuDNN here, so convolutions are compiled without its workspaces, and kernels are
not chosen by trial: memory and time are less sure than for TPU.
"""

from collections.abc import Sequence
from typing import Any

from simvlm_jax.errors import UserError

# What the compiler asks about an H100 SXM: NVIDIA's H100 white paper and the limits of compute
# capability 9.0 in the CUDA programming guide.
_H100 = {
    "core_count": 132,
    "fpus_per_core": 128,
    "clock_rate_ghz": 1.98,
    "threads_per_warp": 32,
    "threads_per_block_limit": 1024,
    "threads_per_core_limit": 2048,
    "block_dim_limit_x": 2**31 - 1,
    "block_dim_limit_y": 2**16 - 1,
    "block_dim_limit_z": 2**16 - 1,
    "registers_per_core_limit": 2**16,
    "registers_per_block_limit": 2**16,
    "shared_memory_per_block": 48 * 2**10,
    "shared_memory_per_block_optin": 227 * 2**10,
    "shared_memory_per_core": 228 * 2**10,
    "l2_cache_size": 50 * 2**20,
    "memory_bandwidth": 3_350_000_000_000,
    "device_memory_size": 80_000_000_000,
}


def describe_gpus(name: str, shape: Sequence[int]) -> list[Any]:
    """Devices of `hosts` machines with some H100 each; each host is a slice of its own.

    Args:
      name: of the topology, for the message.
      shape: (hosts, GPUs of a host).

    Raises:
      UserError: the CUDA plugin is not installed.
    """
    from jax.experimental import topologies

    hosts, gpus = shape
    try:
        import jax_cuda12_plugin  # noqa: F401 - only whether it is there

        topology = topologies.get_topology_desc(
            platform="cuda", topology=f"{hosts}x1x{gpus}", target_config=_target_config()
        )
    except (ImportError, NotImplementedError):
        raise UserError(
            f"Compiling for {name} needs XLA's compiler for GPUs, though no GPU: install the extra "
            "[cuda_plan], or [cuda] with all of CUDA."
        ) from None
    return list(topology.devices)


def _target_config() -> str:
    fields = "".join(f"  {name}: {value}\n" for name, value in _H100.items())
    return (
        f"gpu_device_info {{\n{fields}  cuda_compute_capability {{ major: 9 }}\n}}\n"
        'platform_name: "CUDA"\ndnn_version_info { major: 9 minor: 10 }\n'
        'device_description_str: "NVIDIA H100 80GB HBM3"\n'
    )
