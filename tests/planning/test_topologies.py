import importlib.util
import subprocess
import sys

import pytest

from simvlm_jax.errors import UserError
from simvlm_jax.partitioning import slice_count, torus_axes
from simvlm_jax.planning.topologies import open_topology, parse, prepare

HAS_LIBTPU = importlib.util.find_spec("libtpu") is not None
HAS_CUDA = importlib.util.find_spec("jax_cuda12_plugin") is not None
needs_libtpu = pytest.mark.skipif(not HAS_LIBTPU, reason="libtpu is not installed")
needs_cuda = pytest.mark.skipif(not HAS_CUDA, reason="jax-cuda12-plugin is not installed")


def test_names_are_shapes():
    assert parse("v5e:16x16") == ("v5e", (16, 16))
    assert parse("v4:8x8x8") == ("v4", (8, 8, 8))
    assert parse("cpu:8") == ("cpu", (8,))


@pytest.mark.parametrize(
    "name",
    ["v5e", "v5litepod-256", "v9:2x2", "v5e:16*16", "cpu:", "v4:2x2x2x2", "cpu:0", "v5e:0x4"],
)
def test_other_names_are_refused(name):
    with pytest.raises(UserError, match="is not a topology: write KIND:SHAPE, .* v5e:16x16"):
        parse(name)


def test_one_cpu_device():
    found = open_topology("cpu:1")
    assert (found.chips, found.chip, len(found.devices)) == (1, None, 1)
    assert found.label == "cpu:1 (1 CPU devices)"


def test_missing_cpu_devices_are_named():
    with pytest.raises(UserError, match="needs 4096 CPU devices, and this process has"):
        open_topology("cpu:4096")


def test_slices_are_for_tpu():
    with pytest.raises(UserError, match="--slices=2 is for TPU; cpu:8 has none"):
        open_topology("cpu:8", 2)


@pytest.mark.skipif(HAS_LIBTPU, reason="libtpu is installed")
def test_without_libtpu_it_says_how_to_get_it():
    with pytest.raises(UserError, match="needs TPU's compiler, though no TPU: pip install"):
        open_topology("v5e:2x2")


@pytest.mark.skipif(HAS_CUDA, reason="the CUDA plugin is installed")
def test_without_the_cuda_plugin_it_says_how_to_get_it():
    with pytest.raises(UserError, match="needs XLA's compiler for GPUs, though no GPU"):
        open_topology("h100:1x8")


@pytest.fixture
def no_machine(monkeypatch):
    for name in ("JAX_PLATFORMS", "XLA_FLAGS"):
        monkeypatch.setenv(name, "")  # put back afterwards
    prepare("v5e:2x2")


@needs_libtpu
@pytest.mark.parametrize(
    ("name", "slices", "chips", "devices", "torus"),
    [
        ("v3:2x2", 1, 4, 8, (2, 2)),
        ("v4:4x4x4", 1, 64, 64, (4, 4, 4)),
        ("v5e:4x4", 2, 32, 32, (4, 4)),
        ("v5p:2x2x1", 1, 4, 4, (2, 2)),
        ("v6e:4x4", 1, 16, 16, (4, 4)),
    ],
)
def test_tpu_slices(no_machine, name, slices, chips, devices, torus):
    found = open_topology(name, slices)
    assert (found.chips, len(found.devices)) == (chips, devices)
    assert slice_count(found.devices) == slices and torus_axes(found.devices) == torus
    start = f"{slices} slices of " if slices > 1 else ""
    assert found.label == f"{start}{name} ({chips} chips)"


@needs_libtpu
def test_an_impossible_shape_gets_a_sentence(no_machine):
    with pytest.raises(UserError, match="TPU's compiler knows no topology v5e:3x5"):
        open_topology("v5e:3x5")


@needs_cuda
def test_gpu_hosts():
    """In a process of its own, where JAX has not looked for a GPU yet."""
    program = (
        "from simvlm_jax.planning.topologies import open_topology, prepare; "
        "prepare('h100:2x8'); found = open_topology('h100:2x8'); "
        "from simvlm_jax.partitioning import slice_count; "
        "print(len(found.devices), slice_count(found.devices), found.label)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.splitlines() == ["16 2 h100:2x8 (16 GPUs)"], done.stderr


def test_gpus_are_hosts_times_gpus():
    with pytest.raises(UserError, match="must be hosts x GPUs"):
        open_topology("h100:8")
