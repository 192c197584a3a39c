"""`simvlm ablate`: every row of the paper's ablation at equal compute, and its table."""

import argparse
import hashlib
import json
import os
import shlex
import sys
from pathlib import Path

from simvlm_jax.cli import options
from simvlm_jax.errors import UserError

HELP = "run the paper's ablation at tiny size, and write its table with intervals"
EXAMPLE = "simvlm ablate --output_dir=runs/ablation"
SETTINGS, RESULTS, TABLE, PAGE = "settings.json", "results.json", "table.md", "index.html"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options."""
    add = parser.add_argument
    add(
        "--output_dir",
        required=True,
        help="a folder for each row and seed, and the table; what is finished there stays",
    )
    add("--data_dir", help="prepared data (default: $SIMVLM_DATA_DIR, else ./data)")
    add("--rows", type=_names, default=[], metavar="A,B", help="only these, and the base row")
    add("--seeds", type=_seeds, default=[0, 1, 2], metavar="N,N", help="default: 0,1,2")
    add(
        "--steps",
        type=options.count_from(1),
        default=1000,
        help="pretraining steps of the base row; the other rows take as many as cost the same "
        "(default: 1000)",
    )
    add(
        "--question_steps",
        type=options.count_from(1),
        default=400,
        help="steps of the downstream task in every row (default: 400)",
    )
    add(
        "--parallel",
        type=options.count_from(1, 64),
        default=min(2, len(os.sched_getaffinity(0))),
        help="runs at a time, each on its share of the cores, so that one's start and compiling do "
        "not leave cores idle (default: 2, if there are as many cores)",
    )
    add(
        "--budget_minutes",
        type=options.count_from(1),
        help="begin no stage after so long; the same command goes on from there",
    )
    add("--downstream_verb", choices=("train", "finetune"), default="train", help="trains on it")
    add(
        "--downstream_gin",
        action="append",
        help="what a run is judged by: gin files read after a row's (default: "
        "ablations/questions.gin); may be repeated",
    )
    add(
        "--evaluation_gin",
        default="ablations/evaluate.gin",
        help="of simvlm evaluate (default: ablations/evaluate.gin)",
    )
    add(
        "--metric",
        type=_metric,
        default=("questions", "accuracy"),
        metavar="SECTION.NAME",
        help="the score, a share, in metrics.json (default: questions.accuracy)",
    )
    add("--dry_run", action="store_true", help="print every command, and run none")
    add("--table", action="store_true", help="print the table of what is there as Markdown")


def run(args: argparse.Namespace) -> int:
    """Runs what is not finished, and writes the table; 1 where a run is missing."""
    folder = Path(args.output_dir)
    if args.data_dir:
        os.environ["SIMVLM_DATA_DIR"] = args.data_dir
    options.import_tensorflow()
    import simvlm_jax.tasks  # noqa: F401 - gin files name them
    from simvlm_jax.ablation import plan, rows, running
    from simvlm_jax.data import ablation, paths

    chosen, downstream = rows.chosen_rows(args.rows), _downstream(args)
    compute = plan.compute_of(chosen, args.steps, args.question_steps)
    runs = plan.runs_of(chosen, args.seeds, compute, folder, downstream)
    if args.dry_run:
        print("\n".join(shlex.join(s.command) for run in runs for s in run.stages))
        return 0
    data = paths.data_dir() / ablation.FOLDER / ablation.SUMMARY
    settings = plan.settings(compute, downstream, data)
    _keep_settings(folder, settings)
    outcome = running.Outcome([], stopped=False)
    if not args.table:
        outcome = running.run_all(
            runs, args.parallel, args.budget_minutes, environment=_environment(folder)
        )
    gone = _write(folder, chosen, runs, compute, downstream, settings, args.table)
    if outcome.stopped:
        print("Stopped; the same command goes on from here.", file=sys.stderr)
    return 1 if gone else 0


def _downstream(args: argparse.Namespace):
    """The downstream task that was asked for."""
    from simvlm_jax.ablation.plan import Downstream

    files = tuple(args.downstream_gin or ("ablations/questions.gin",))
    return Downstream(args.downstream_verb, files, args.evaluation_gin, *args.metric)


def _write(folder, chosen, runs, compute, downstream, settings, shown: bool) -> list[str]:
    """Writes results.json, the table and the page; returns which runs are missing."""
    from simvlm_jax.ablation import results, table
    from simvlm_jax.errors import writing
    from simvlm_jax.training.folder import write_atomic

    found = results.gather(chosen, runs, compute, downstream, settings)
    text = table.markdown(found)
    with writing(folder):
        write_atomic(folder / RESULTS, json.dumps(found, indent=2).encode())
        write_atomic(folder / TABLE, text.encode())
        write_atomic(folder / PAGE, table.html(found).encode())
    print(text if shown else f"Table: {folder / TABLE}\nPage:  {folder / PAGE}")
    return results.missing(found)


def _keep_settings(folder: Path, settings: dict) -> None:
    """Refuses to mix runs of other settings into a folder.

    Raises:
      UserError: the folder was begun with others.
    """
    from simvlm_jax.errors import writing
    from simvlm_jax.json_files import read_object
    from simvlm_jax.training.folder import write_atomic

    path = folder / SETTINGS
    before = read_object(path) if path.is_file() else {"compute": {}}
    compute = before.get("compute")
    if not isinstance(compute, dict):
        raise UserError(f"{path} is no settings of an ablation: give another --output_dir.")
    asked = json.loads(json.dumps(settings))
    merged = {**compute, **asked["compute"]}
    same = all(merged[name] == value for name, value in compute.items())
    rest = {name: value for name, value in before.items() if name != "compute"}
    if not same or any(asked[name] != value for name, value in rest.items() if name in asked):
        raise UserError(
            f"{folder} was begun with other steps, another configuration or other data: give the "
            "same --steps and --question_steps, or another --output_dir."
        )
    with writing(path):
        folder.mkdir(parents=True, exist_ok=True)
        write_atomic(path, json.dumps({**asked, "compute": merged}, indent=2).encode())


def _environment(folder: Path) -> dict[str, str]:
    """What the runs share: programs that are compiled once, on processors of one kind."""
    information = Path("/proc/cpuinfo")
    lines = information.read_text().splitlines() if information.is_file() else []
    kind = "".join(sorted({line for line in lines if line.startswith(("flags", "Features"))}))
    name = f"compiled_{hashlib.sha256(kind.encode()).hexdigest()[:8]}"
    compiled = str((folder / name).absolute())
    return {
        "JAX_COMPILATION_CACHE_DIR": compiled,
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.5",
    }


def _names(text: str) -> list[str]:
    """A type of argparse: names with commas between."""
    return [name.strip() for name in text.split(",") if name.strip()]


def _metric(text: str) -> tuple[str, str]:
    """A type of argparse: SECTION.NAME."""
    section, dot, name = text.partition(".")
    if not (section and dot and name):
        raise argparse.ArgumentTypeError(f"{text!r} is not SECTION.NAME, as in questions.accuracy")
    return section, name


def _seeds(text: str) -> list[int]:
    """A type of argparse: different whole numbers with commas between."""
    parts = _names(text)
    if not parts or not all(part.isdecimal() for part in parts) or len({*parts}) < len(parts):
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a list of different whole numbers, such as 0,1,2"
        )
    return [int(part) for part in parts]
