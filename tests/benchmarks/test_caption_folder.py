"""The benchmark runs, and its last line is a JSON object."""

import pytest

from benchmarks.test_input import run


def test_caption_folder():
    found = run("caption_folder.py", "--images=40", "--batch_size=16", "--rounds=1")
    command, model = (found[f"{way}_images_per_second"]["median"] for way in ("command", "model"))
    assert command > 0 and model > 0
    expected = pytest.approx(command / model, rel=0.02)  # of rounded rates
    assert found["share_of_the_model_s_speed"]["median"] == expected
    for way in ("command", "model"):
        assert found[f"{way}_processor_seconds"]["lowest"] > 0
