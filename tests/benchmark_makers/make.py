"""Writes small data in the official formats of benchmarks, from code or from open packages.

    python tests/benchmark_makers/make.py easy_vqa FOLDER

FOLDER is a data folder (`--data_dir` of simvlm's verbs); each maker writes the benchmark's own
folder into it. `python tests/benchmark_makers/make.py --help` names the makers.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmark_makers import vqa_v2  # noqa: E402 - found by the line above

MAKERS = {"vqa_v2": vqa_v2.make, "easy_vqa": vqa_v2.make_easy_vqa}


def main() -> None:
    """Makes what the command line says."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("maker", choices=sorted(MAKERS), help="what to make")
    parser.add_argument("folder", type=Path, help="the data folder")
    given = parser.parse_args()
    MAKERS[given.maker](given.folder)
    print(f"{given.maker} is written into {given.folder}.")


if __name__ == "__main__":
    main()
