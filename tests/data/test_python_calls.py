"""A stream may be left at any moment: deleting its pipeline must not wait for ever."""

import os
import subprocess
import sys
import threading
import time

import tensorflow as tf

from simvlm_jax.data import python_calls

LEAVE = """
import simvlm_jax.tasks
from simvlm_jax.data.streams import GroupStream

lengths = {"image": 1, "example_seed": 2, "inputs": 16, "targets": 16}
for number in range(15):
    stream = GroupStream({"openmoji_prefix_lm": 8}, {}, 16, lengths, {}, (64, 64), seed=number)
    batches = stream.batches(0)
    next(batches)
    if number % 2:
        batches.close()
    else:
        del batches
print("left")
"""


FAIL = """
import simvlm_jax.tasks
from simvlm_jax.data.streams import GroupStream

lengths = {"image": 1, "example_seed": 2, "inputs": 16, "targets": 16}
stream = GroupStream({"openmoji_prefix_lm": 8}, {}, 64, lengths, {}, (224, 224), seed=0)
batches = stream.batches(0)
next(batches)
raise KeyError("as anything may")
"""


def test_a_program_that_fails_beside_a_stream_ends(made_data):
    environment = os.environ | {"SIMVLM_DATA_DIR": str(made_data)}
    command = [sys.executable, "-c", FAIL]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1 and "as anything may" in done.stderr


def test_streams_are_left_while_they_read_ahead(made_data):
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
