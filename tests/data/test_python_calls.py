"""A pipeline may be left at any moment: deleting it must not wait for ever."""

import os
import subprocess
import sys
import threading
import time

import tensorflow as tf

from simvlm_jax.data import python_calls

LENGTHS = {"image": 1, "example_seed": 2, "inputs": 16, "targets": 16}
# Large images, so that a pipeline that is left has many calls of Python before it.
LEAVE = f"""
import simvlm_jax.tasks
from simvlm_jax.data.plain import plain_batches

for number in range(15):
    batches = plain_batches("openmoji_prefix_lm", "train", {LENGTHS}, (512, 512), 2)
    next(batches)
    if number % 2:
        batches.close()
    else:
        del batches
print("left")
"""
FAIL = f"""
import simvlm_jax.tasks
from simvlm_jax.data.plain import plain_batches

batches = plain_batches("openmoji_prefix_lm", "train", {LENGTHS}, (1024, 1024), 1)
next(batches)
raise KeyError("as anything may")
"""


def test_a_program_that_fails_beside_a_pipeline_ends(made_data):
    environment = os.environ | {"SIMVLM_DATA_DIR": str(made_data)}
    command = [sys.executable, "-c", FAIL]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1 and "as anything may" in done.stderr


def test_pipelines_are_left_while_they_read_ahead(made_data):
    environment = os.environ | {"SIMVLM_DATA_DIR": str(made_data)}
    command = [sys.executable, "-c", LEAVE]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.stdout == "left\n", done.stderr


def test_it_waits_for_a_call_under_way_and_then_for_a_rest():
    released = threading.Event()

    def slow(value):
        released.wait(10)
        return value

    thread = threading.Thread(
        target=lambda: python_calls.numpy_function(slow, [tf.constant(1)], tf.int32)
    )
    thread.start()
    began = time.monotonic()
    threading.Timer(0.3, released.set).start()
    python_calls.wait_until_idle(rest=0.1)
    assert 0.3 <= time.monotonic() - began < 5
    thread.join()


def test_its_patience_ends():
    with python_calls._calls:
        began = time.monotonic()
        python_calls.wait_until_idle(rest=0.1, patience=0.2)
        assert 0.2 <= time.monotonic() - began < 5
