"""Images a second of the training stream, beside a bare decoder and beside WebDataset.

    pip install -e '.[bench]'; python benchmarks/input_pipeline.py

Everything runs in turn, in the same rounds, on the same JPEG files: 640 x 480 pixels, about 100 kB,
random resized crop to 224 x 224, batches of 256.

* bare: the decoder and resizer of the stream alone, on bytes in memory, in as many threads.
* stream: `GroupStream` from ArrayRecord shards: order, reading, tokens, decoding, batches.
* webdataset: tar shards, Pillow and torchvision's transforms in a DataLoader of 2 workers, each
  image a normalised float tensor, as its users write it; `webdataset_uint8` leaves the
  normalising out.

The last line is a JSON object; each ratio is the median over the rounds of ratios within a round.
"""

import argparse
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import psutil
import seqio
import tensorflow as tf
from photos import photo

from simvlm_jax.data.features import task_features
from simvlm_jax.data.images import Augmentation, choose_views, read_crop
from simvlm_jax.data.prefix import prefix_lm
from simvlm_jax.data.preprocessors import from_record
from simvlm_jax.data.records import encode_example, write_shards
from simvlm_jax.data.sources import ArrayRecordSource
from simvlm_jax.data.streams import GroupStream
from simvlm_jax.data.vocabulary import default_vocabulary, train_vocabulary

BATCH, IMAGE_SIZE, SHARDS, WORKERS = 256, (224, 224), 4, 2
LENGTHS = {"image": 1, "example_seed": 2, "inputs": 32, "targets": 32}
PIECES = 160
WORDS = "a small red house stands beside the old blue river under two green trees".split()


def main() -> None:
    """Runs the rounds and prints the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batches", type=int, default=8, help="timed in each round")
    parser.add_argument("--records", type=int, default=4096)
    parser.add_argument("--memory_records", type=int, default=100_000)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        contents = write_data(Path(folder), args.records)
        os.environ["SIMVLM_DATA_DIR"] = folder
        register()
        contestants = {
            "bare": lambda: bare(contents, args.batches),
            "stream": lambda: stream(args.batches),
        }
        if importlib.util.find_spec("torch"):
            contestants["webdataset"] = lambda: webdataset(folder, args.batches)
            contestants["webdataset_uint8"] = lambda: webdataset(folder, args.batches, "--uint8")
        else:
            print("Without PyTorch there is no peer: pip install -e '.[bench]'.", file=sys.stderr)
        rates: dict[str, list[float]] = {name: [] for name in contestants}
        for number in range(args.rounds):
            for name, run in contestants.items():
                rates[name].append(run())
            told = ", ".join(f"{name} {values[-1]:.0f}" for name, values in rates.items())
            print(f"round {number + 1}: {told} images a second", file=sys.stderr)
        result = summary(rates) | waiting(args.batches) | memory(args.memory_records)
    result["kilobytes_per_image"] = round(sum(map(len, contents)) / len(contents) / 1000, 1)
    print(json.dumps(result))


def write_data(folder: Path, count: int) -> list[bytes]:
    """Writes the same images and captions as ArrayRecord shards and as tar shards."""
    distinct = [photo(seed) for seed in range(min(count, 256))]
    contents = [distinct[index % len(distinct)] for index in range(count)]
    random = np.random.default_rng(0)
    captions = [" ".join(random.choice(WORDS, 9)) for _ in contents]
    train_vocabulary(captions, folder / "vocabulary.model", PIECES)
    pairs = list(zip(contents, captions, strict=True))
    records = [encode_example({"image/encoded": i, "caption": c}) for i, c in pairs]
    write_shards(folder / "photos", "train", records, SHARDS)
    for shard in range(SHARDS):
        with tarfile.open(folder / f"{shard}.tar", "w") as tar:
            for index in range(shard, count, SHARDS):
                for ending, data in (("jpg", pairs[index][0]), ("txt", pairs[index][1].encode())):
                    member = tarfile.TarInfo(f"{index:08d}.{ending}")
                    member.size = len(data)
                    tar.addfile(member, BytesIO(data))
    return contents


def register() -> None:
    """Registers the task over the ArrayRecord shards."""
    string = tf.io.FixedLenFeature([], tf.string)
    seqio.TaskRegistry.add(
        "photos",
        source=ArrayRecordSource("photos", ["train"], {"image/encoded": string, "caption": string}),
        preprocessors=[
            lambda dataset: from_record(dataset, "{caption}", image="image/encoded"),
            prefix_lm,
        ],
        output_features=task_features(default_vocabulary(), image=True),
    )


def bare(contents: list[bytes], batches: int) -> float:
    """Decodes and resizes, and nothing else."""
    random = np.random.default_rng(0)
    seeds = random.integers(1, 1 << 62, (batches * BATCH, 2))
    order = random.integers(0, len(contents), batches * BATCH)
    views = choose_views(seeds, Augmentation())
    pixels = np.empty((BATCH, *IMAGE_SIZE, 3), np.uint8)

    def run(part: int) -> None:
        for number in range(part, len(order), WORKERS):
            pixels[number % BATCH] = read_crop(contents[order[number]], views[number], IMAGE_SIZE)

    with ThreadPoolExecutor(WORKERS) as pool:
        start = time.perf_counter()
        list(pool.map(run, range(WORKERS)))
        return len(order) / (time.perf_counter() - start)


def stream(batches: int) -> float:
    """Takes batches as fast as they come, after those that were made ahead while it started."""
    made = make_stream().batches()
    for _ in range(4):
        next(made)
    start = time.perf_counter()
    for _ in range(batches):
        next(made)
    rate = batches * BATCH / (time.perf_counter() - start)
    made.close()
    return rate


def make_stream() -> GroupStream:
    """The stream over the photographs alone."""
    return GroupStream({"photos": 1}, {}, BATCH, LENGTHS, {}, IMAGE_SIZE, seed=0, threads=WORKERS)


def webdataset(folder: str, batches: int, *options: str) -> float:
    """The peer's rate, in a process of its own."""
    script, shards = Path(__file__).with_name("webdataset_loader.py"), f"{{0..{SHARDS - 1}}}.tar"
    command = [sys.executable, script, f"{folder}/{shards}", f"--batches={batches}", *options]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def waiting(batches: int) -> dict[str, float]:
    """The share of time that a training of 1.3 times the stream's time a step would wait for it."""
    made, step = make_stream().batches(), 1.3 * BATCH / stream(batches)
    next(made)
    time.sleep(2 * step)
    waited, start = 0.0, time.perf_counter()
    for _ in range(batches):
        before = time.perf_counter()
        next(made)
        waited += time.perf_counter() - before
        time.sleep(step)  # an accelerator's step leaves the cores alone
    share = waited / (time.perf_counter() - start)
    made.close()
    return {"waiting_share": round(share, 4)}


def memory(records: int) -> dict[str, float]:
    """Resident memory after a tenth of the records and after all of them."""
    process, made, resident = psutil.Process(), make_stream().batches(), []
    for number in range(1, records // BATCH + 1):
        next(made)
        if number in (records // BATCH // 10, records // BATCH):
            resident.append(process.memory_info().rss / 1e6)
    made.close()
    return {
        "memory_records": records,
        "resident_megabytes": round(resident[-1]),
        "resident_growth_megabytes": round(resident[-1] - resident[0], 1),
    }


def summary(rates: dict[str, list[float]]) -> dict[str, float]:
    """Medians, spreads, and ratios within rounds."""

    def ratio(one: str, other: str) -> float:
        pairs = zip(rates[one], rates[other], strict=True)
        return round(statistics.median(a / b for a, b in pairs), 3)

    result: dict[str, float] = {"images_per_second": round(statistics.median(rates["stream"]))}
    result["ratio_to_bare_loop"] = ratio("stream", "bare")
    for peer in ("webdataset", "webdataset_uint8"):
        if peer in rates:
            result[f"ratio_to_{peer}"] = ratio("stream", peer)
    for name, values in rates.items():
        result[f"{name}_lowest"], result[f"{name}_highest"] = round(min(values)), round(max(values))
    return result


if __name__ == "__main__":
    main()
