"""The benchmarks of the input side run, and their last line is a JSON object."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def run(name, *arguments):
    command = [sys.executable, str(BENCHMARKS / name), *arguments]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def test_input_pipeline():
    sizes = ["--records=300", "--memory_records=2560", "--batches=1", "--rounds=1"]
    found = run("input_pipeline.py", *sizes)
    assert found["images_per_second"] == found["stream_lowest"] == found["stream_highest"]
    ratio = found["stream_lowest"] / found["bare_lowest"]
    assert found["ratio_to_bare_loop"] == pytest.approx(ratio, rel=0.02)  # of rounded rates
    assert found["waiting_share"] < 0.9 and found["resident_megabytes"] > 100
    assert 80 < found["kilobytes_per_image"] < 120  # what the figures are told for


def test_stream_start():
    found = run("stream_start.py", "--repeats=1")
    seconds = found["seconds_to_first_batch"]
    assert set(seconds) == {"0", "10000", "1000000"} and min(seconds.values()) > 0
    assert seconds == found["lowest"] == found["highest"]  # of one repeat
    ratio = max(seconds.values()) / min(seconds.values())
    assert found["slowest_to_fastest"] == pytest.approx(ratio, rel=0.02)  # of rounded seconds
