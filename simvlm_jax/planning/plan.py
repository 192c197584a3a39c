"""A training plan: compiles a step for a machine and says whether it fits and what limits it.

The floors are what one resource needs if all others were free. The longest binds, and bounds the
share of the peak (MFU) that useful work can reach; hardly a real step is as fast. Useful work is
the analytic count: what rematerialisation repeats is no part of it.
"""

import math
import re
import resource
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax

from simvlm_jax.errors import UserError
from simvlm_jax.partitioning import describe
from simvlm_jax.planning import collectives, costs, hlo, lengths, memory, network
from simvlm_jax.planning.job import Job
from simvlm_jax.planning.topologies import Topology

_CYCLES = re.compile(r'"estimated_cycles":"(\d+)"')
_DAY = 86_400.0


def make_plan(
    job: Job,
    topology: Topology,
    total_steps: int,
    histograms: Mapping[str, lengths.Histogram] | None = None,
    text_file: str | None = None,
) -> dict[str, Any]:
    """Compiles a job and works everything out.

    Args:
      job: what to compile.
      topology: the machine.
      total_steps: steps of the whole run.
      histograms: lengths of texts under 'pairs' and 'documents'; nothing means full batches.
      text_file: where to write the compiled program, to look into it.

    Returns:
      What `simvlm compile --json` prints; docs/scaling.md says how to read it.

    Raises:
      UserError: the compiler refuses for another reason than memory.
    """
    if text_file:
        _require_writable(text_file)
    began = time.monotonic()
    lowered = job.function.lower(*job.arguments)
    plan = _known(job, topology)
    try:
        compiled = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        short = memory.shortage(str(error))
        if short is None:
            reason = " ".join(str(error).split())[:300]
            raise UserError(f"The compiler refuses {topology.label}: {reason}") from None
        plan |= {"fits": False, "hbm_bytes_per_device": short[0], "hbm_limit_bytes": short[1]}
        return plan | {"compile_seconds": time.monotonic() - began}
    plan["compile_seconds"] = time.monotonic() - began
    found = memory.parts(job, compiled)
    limit = topology.chip.hbm_bytes / topology.chip.devices if topology.chip else None
    plan |= {
        "fits": limit is None or found["total"] <= limit,
        "hbm_bytes_per_device": found["total"],
        "hbm_limit_bytes": limit,
        "hbm_parts": found,
    }
    text = compiled.as_text()
    if text_file:
        Path(text_file).write_text(text)
    try:
        plan |= _costs(hlo.parse(text), job, topology)
    except (ValueError, KeyError, IndexError) as error:
        raise UserError(
            f"{topology.label} takes {found['total'] / 2**30:.2f} GiB a device, but the compiled "
            f"program cannot be read any further ({error}): report it with the file of --text."
        ) from error
    plan |= _bounds(plan, job, topology, total_steps, histograms or {})
    plan["host_memory_bytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return plan


def _known(job: Job, topology: Topology) -> dict[str, Any]:
    return {
        "topology": topology.name,
        "slices": topology.slices if topology.is_tpu else 1,
        "label": topology.label,
        "devices": len(topology.devices),
        "chips": topology.chips,
        "mesh": job.layout.sizes,
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(job.state.params)),
        "examples_per_step": examples(job),
        "flops_per_step": job.model_flops,
    }


def examples(job: Job) -> int:
    """Pairs and documents in a batch."""
    shapes = job.shapes.input_shapes
    ends = [s for name, s in shapes.items() if name.endswith("decoder_target_tokens")]
    return sum(math.prod(shape[:-1]) for shape in ends)


def _costs(program: hlo.Program, job: Job, topology: Topology) -> dict[str, Any]:
    devices = list(job.layout.mesh.devices.flat)
    found = list(collectives.collectives(program, len(devices)))
    traffic = network.traffic(found, topology, devices)
    executed, moved = costs.operations(program), costs.memory_bytes(program)
    cycles = sum(
        int(match[1]) * times
        for one, _, times in program.executed()
        if (match := _CYCLES.search(one.text))
    )
    result = {
        "executed_flops_per_step": executed * len(devices),
        "hbm_traffic_bytes_per_device": moved,
        "collective_bytes": traffic.bytes,
        "seconds_floor": None,
        "compiler_seconds": None,
    }
    chip = topology.chip
    if chip:
        result["seconds_floor"] = {
            "compute": executed * chip.devices / chip.peak_flops,
            "hbm": moved * chip.devices / chip.hbm_bandwidth,
            **traffic.seconds,
        }
        result["compiler_seconds"] = cycles / chip.clock if cycles else None
    return result


def _bounds(
    plan: Mapping[str, Any],
    job: Job,
    topology: Topology,
    total_steps: int,
    histograms: Mapping[str, lengths.Histogram],
) -> dict[str, Any]:
    """What follows from the longest floor."""
    real = _real_flops(job, histograms)
    share = real / job.model_flops
    floors = plan["seconds_floor"]
    if not floors:
        nothing = dict.fromkeys(
            ("binding", "mfu_bound", "mfu_bound_real_tokens", "examples_per_second", "days")
        )
        return {"real_token_share": share, **nothing, "chip_hours": None}
    binding = max(floors, key=floors.get)
    seconds = floors[binding]
    expected = max(seconds, plan["compiler_seconds"] or 0.0)
    useful = job.model_flops / (topology.chip.peak_flops * topology.chips * seconds)
    days = total_steps * seconds / _DAY
    return {
        "binding": binding,
        "mfu_bound": useful,
        "mfu_bound_real_tokens": useful * share,
        "real_token_share": share,
        "examples_per_second": plan["examples_per_step"] / seconds,
        "total_steps": total_steps,
        "days": days,
        "chip_hours": days * 24 * topology.chips,
        "mfu_estimate": useful * seconds / expected,
        "days_estimate": days * expected / seconds,
        "chip_hours_estimate": days * 24 * topology.chips * expected / seconds,
    }


def _require_writable(path: str) -> None:
    """Refuses a place for the program before minutes are spent on it."""
    try:
        Path(path).touch()
    except OSError as error:
        raise UserError(f"--text={path} cannot be written: {error.strerror}.") from None


def _real_flops(job: Job, histograms: Mapping[str, lengths.Histogram]) -> float:
    """`model_flops` without the padding of texts."""
    shapes, total = job.shapes.input_shapes, 0.0
    passes = job.model_flops / job.model.train_flops(shapes)
    for prefix, kind in (("", "pairs"), ("document_", "documents")):
        target = shapes.get(f"{prefix}decoder_target_tokens")
        if target is None:
            continue
        room = shapes[f"{prefix}encoder_input_tokens"][-1], target[-1]
        histogram = histograms.get(kind)
        only = {name: shape for name, shape in shapes.items() if _kind(name) == prefix}
        full = job.model.train_flops(only)
        if histogram:
            with_image = f"{prefix}image" in shapes
            count = math.prod(target[:-1])
            real = lengths.real_flops(job.model.config, histogram, *room, with_image)
            full = 3.0 * count * real
        total += passes * full
    return total


def _kind(name: str) -> str:
    return "document_" if name.startswith("document_") else ""


def mesh_line(job: Job, topology: Topology) -> str:
    """For people: "mesh data=16 x fsdp=16 x tensor=1 on v5e:16x16 (256 chips)"."""
    return f"mesh {describe(job.layout.sizes)} on {topology.label}"
