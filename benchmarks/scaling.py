"""Plans the paper's pretraining for several machines and writes the table of docs/scaling.md.

    python benchmarks/scaling.py --folder=plans   # an hour; goes on after a stop
    python benchmarks/scaling.py --folder=plans --only huge_v5e base_v5e

Every row is one `simvlm compile --json`, whose object stays in the folder as ROW.json. A row that
is there is not compiled again. The last line is a JSON object of all rows.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

LENGTHS = ["--pair_tokens=8:25,16:50,32:20,64:5", "--document_tokens=512:1"]
ROWS = {
    "huge_v3": ("huge", "v3:16x32", ["--gin", "STRATEGY = 'fsdp+tensor'"]),
    "huge_v4": ("huge", "v4:8x8x8", []),
    "huge_v5e": ("huge", "v5e:16x16", []),
    "huge_v5e_2": ("huge", "v5e:16x16", ["--slices=2"]),
    "huge_v5p": ("huge", "v5p:8x8x8", []),
    "huge_v6e": ("huge", "v6e:16x16", []),
    "huge_h100": ("huge", "h100:4x8", []),
    "large_v4": ("large", "v4:8x8x8", []),
    "large_v5e": ("large", "v5e:16x16", []),
    "base_v4": ("base", "v4:8x8x8", []),
    "base_v5e": ("base", "v5e:16x16", []),
}


def main() -> None:
    """Compiles what is missing and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--only", nargs="+", choices=ROWS, default=list(ROWS))
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    plans = {}
    for name in args.only:
        path = args.folder / f"{name}.json"
        if not path.exists():
            print(" ".join(command(name)), file=sys.stderr)
            arguments = [sys.executable, "-m", "simvlm_jax.cli.main", *command(name)[1:]]
            done = subprocess.run(arguments, check=True, capture_output=True, text=True)
            path.write_text(done.stdout)
        plans[name] = json.loads(path.read_text())
    print(table(plans))
    print(json.dumps(plans))


def command(name: str) -> list[str]:
    """What makes a row."""
    size, topology, options = ROWS[name]
    files = [f"--gin_file=models/{size}.gin", "--gin_file=runs/paper.gin"]
    return ["simvlm", "compile", f"--topology={topology}", *files, *LENGTHS, *options, "--json"]


def table(plans: dict[str, dict]) -> str:
    """Markdown: one line a row."""
    head = (
        "| model, machine | mesh | GiB a device (of) | floors ms: compute, HBM, ICI, DCN | binds "
        "| MFU bound (real tokens) | days, chip-hours at it | compiler's estimate ms | MFU "
        "| days, chip-hours | compiled in s, host GB |"
    )
    lines = [head, "|" + "---|" * (head.count("|") - 1)]
    for name, plan in plans.items():
        lines.append(f"| {ROWS[name][0]}, {plan['label']} | {row(plan)} |")
    return "\n".join(lines)


def row(plan: dict) -> str:
    """The cells of one plan after the first."""
    gib = 2**30
    mesh = " x ".join(str(size) for size in plan["mesh"].values())
    memory = f"{plan['hbm_bytes_per_device'] / gib:.1f} ({plan['hbm_limit_bytes'] / gib:.1f})"
    if not plan.get("seconds_floor"):
        return f"{mesh} | {memory} does not fit"
    floors = ", ".join(f"{1e3 * seconds:.0f}" for seconds in plan["seconds_floor"].values())
    estimate = plan["compiler_seconds"]
    expected = ["none", "", ""]
    if estimate:
        expected = [
            f"{1e3 * estimate:.0f}",
            f"{plan['mfu_estimate']:.0%}",
            f"{plan['days_estimate']:.1f}, {plan['chip_hours_estimate']:,.0f}",
        ]
    cells = [
        mesh,
        memory,
        floors,
        plan["binding"],
        f"{plan['mfu_bound']:.0%} ({plan['mfu_bound_real_tokens']:.0%})",
        f"{plan['days']:.1f}, {plan['chip_hours']:,.0f}",
        *expected,
        f"{plan['compile_seconds']:.0f}, {plan['host_memory_bytes'] / 1e9:.1f}",
    ]
    return " | ".join(cells)


if __name__ == "__main__":
    main()
