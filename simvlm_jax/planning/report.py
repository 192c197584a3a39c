"""A plan for people."""

from collections.abc import Mapping
from typing import Any

_GIB = 2**30


def report(plan: Mapping[str, Any]) -> str:
    """The plan as text."""
    mesh = " x ".join(f"{axis}={size}" for axis, size in plan["mesh"].items())
    lines = [
        f"machine      {plan['label']}, mesh {mesh}",
        f"model        {plan['parameters'] / 1e6:,.1f} M parameters, "
        f"{plan['examples_per_step']:,} examples a step, "
        f"{plan['flops_per_step'] / 1e12:,.3f} TFLOP a step",
        _memory(plan),
    ]
    if "collective_bytes" in plan:
        lines += [*_wire(plan), *_floors(plan)]
    lines.append(f"compiled in  {plan['compile_seconds']:.0f} s")
    return "\n".join(lines)


def _memory(plan: Mapping[str, Any]) -> str:
    limit = plan["hbm_limit_bytes"]
    needed = f"{plan['hbm_bytes_per_device'] / _GIB:.2f} GiB a device"
    of = f" of {limit / _GIB:.2f}" if limit else ""
    verdict = "fits" if plan["fits"] else "does not fit"
    line = f"memory       {verdict if limit else 'needs'}: {needed}{of}"
    if "hbm_parts" in plan:
        parts = {name: size for name, size in plan["hbm_parts"].items() if name != "total"}
        line += "\n             " + ", ".join(f"{n} {b / _GIB:.2f}" for n, b in parts.items())
    return line


def _wire(plan: Mapping[str, Any]) -> list[str]:
    lines = []
    for name, kinds in plan["collective_bytes"].items():
        if kinds:
            told = ", ".join(f"{kind} {sent / 1e9:.2f}" for kind, sent in kinds.items())
            lines.append(f"{name} GB       {told} (sent by a device in a step)")
    return lines


def _floors(plan: Mapping[str, Any]) -> list[str]:
    floors = plan["seconds_floor"]
    if not floors:
        return [f"operations   {plan['executed_flops_per_step'] / 1e12:,.3f} TFLOP are run a step"]
    told = ", ".join(f"{name} {1e3 * seconds:.1f}" for name, seconds in floors.items())
    lines = [
        f"floors ms    {told}; {plan['binding']} binds",
        f"MFU bound    {plan['mfu_bound']:.1%} over all tokens, "
        f"{plan['mfu_bound_real_tokens']:.1%} over real ones",
        f"at the bound {plan['examples_per_second']:,.0f} examples/s; "
        f"{plan['total_steps']:,} steps take {plan['days']:.1f} days, "
        f"{plan['chip_hours']:,.0f} chip-hours",
    ]
    if plan["compiler_seconds"]:
        lines.append(
            f"compiler     expects {1e3 * plan['compiler_seconds']:.1f} ms of computing, one "
            "operation after the other, without collectives:\n"
            f"             MFU {plan['mfu_estimate']:.1%}, {plan['days_estimate']:.1f} days, "
            f"{plan['chip_hours_estimate']:,.0f} chip-hours"
        )
    return lines
