"""The benchmarks of the input side run, and their last line is a JSON object."""

import json
import subprocess
import sys
from pathlib import Path

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def run(name, *arguments):
    command = [sys.executable, str(BENCHMARKS / name), *arguments]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def test_input_pipeline():
    sizes = ["--records=300", "--memory_records=2560", "--batches=1", "--rounds=1"]
    found = run("input_pipeline.py", *sizes)
    assert found["images_per_second"] > 0 and 0.1 < found["ratio_to_bare_loop"] < 10
    assert 0 <= found["waiting_share"] <= 1 and found["resident_megabytes"] > 0
    assert 80 < found["kilobytes_per_image"] < 120  # what the figures are told for


def test_stream_start():
    found = run("stream_start.py", "--repeats=1")
    assert set(found["seconds_to_first_batch"]) == {"0", "10000", "1000000"}
    assert found["slowest_to_fastest"] >= 1
