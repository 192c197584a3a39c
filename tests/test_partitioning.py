"""Rules, meshes and what they do: to losses on 8 devices, to each size on known machines."""

import itertools
import json
import math
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax.sharding import AbstractMesh, PartitionSpec

from golden.write import NETWORKS, PARTITIONING, configuration_of, partitioning_table
from simvlm_jax.errors import UserError
from simvlm_jax.models.tables import parameter_rows
from simvlm_jax.partitioning import AXES, OWN_AXIS_RULES, RULES, Layout, Partitioner, arrange
from simvlm_jax.testing import tiny_config, tiny_groups, tiny_model
from simvlm_jax.training.state import lay_out

# The names in T5X's standard_logical_axis_rules that parameters may have.
T5X_NAMES = {
    "vocab", "embed", "mlp", "heads", "kv", "joined_kv", "relpos_buckets", "abspos_buckets",
    "layers", "stack", "mlp_activations",
}  # fmt: skip


@pytest.fixture(autouse=True)
def forget_gin():
    yield
    import gin

    gin.clear_config()


def test_no_name_has_two_rules():
    names = [name for name, _ in OWN_AXIS_RULES]
    assert len(names) == len(set(names)) and not set(names) & T5X_NAMES


def test_every_name_of_every_network_has_a_rule_and_every_rule_a_name():
    used = set()
    for network in NETWORKS:
        used |= {axis for row in parameter_rows(configuration_of(network)) for axis in row.axes}
    own = {name for name, _ in OWN_AXIS_RULES}
    assert used <= T5X_NAMES | own
    assert own <= used | {"image_batch", "classes"}  # of an activation; of a classifier


def test_our_own_rules_know_every_name():
    used = set()
    for network in NETWORKS:
        used |= {axis for row in parameter_rows(configuration_of(network)) for axis in row.axes}
    assert used <= {name for name, _ in RULES}


@pytest.mark.parametrize("name", NETWORKS)
def test_parameters_lie_as_in_the_golden_table(name):
    path = PARTITIONING / f"{name}.txt"
    assert partitioning_table(name) == path.read_text(), (
        "if it should: python -m tests.golden.write"
    )


@pytest.fixture(scope="module")
def trained():
    command = [sys.executable, str(Path(__file__).with_name("partitioned.py"))]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def test_every_strategy_gives_the_losses_of_one_device(trained):
    meshes = set()
    for name, found in trained.items():
        alone = trained[name.split("/")[0] + "/one"]
        np.testing.assert_allclose(found["losses"], alone["losses"], rtol=1e-5, err_msg=name)
        meshes.add(found["mesh"])
    assert "data=2 x fsdp=2 x tensor=2" in meshes and len(meshes) == 5
    for run in ("paper", "classifier"):
        losses = np.array(trained[f"{run}/one"]["losses"])
        assert len(set(losses[:, 0])) == len(losses)  # it trains


def test_strategies_cut_parameters(trained):
    assert trained["paper/data"]["cut"] == 0
    cut = {name: trained[f"paper/{name}"]["cut"] for name in ("fsdp", "tensor", "fsdp+tensor")}
    assert 0 < cut["tensor"] < cut["fsdp+tensor"] and 0 < cut["fsdp"] < cut["fsdp+tensor"]


def test_a_classifier_s_kernel_is_cut_along_its_inputs(trained):
    """Few numbers divide its classes, and of 3,129 it is too large to be copied."""
    cut = {name: trained[f"classifier/{name}"]["head"] for name in ("tensor", "fsdp+tensor")}
    assert cut == {
        "tensor": ["tensor", None],
        "fsdp+tensor": [["tensor", "fsdp"], None],
    }
    sizes = {"data": 1, "fsdp": 1, "tensor": 8}
    layout = Layout(AbstractMesh(tuple(sizes.values()), AXES))
    axes = {"kernel": SimpleNamespace(names=("mlp", "classes"))}
    spec = layout.parameters(axes, {"kernel": parameter(768, 3129)})["kernel"].spec
    assert spec == PartitionSpec("tensor", None)


WIDTHS = {"fsdp": 1280, "tensor": 1280}


@pytest.mark.parametrize(
    ("strategy", "devices", "slices", "torus", "expected"),
    [
        ("data", 8, 1, (), (8, 1, 1)),
        ("fsdp", 8, 1, (), (1, 8, 1)),
        ("tensor", 8, 1, (), (4, 1, 2)),
        ("fsdp+tensor", 8, 1, (), (1, 8, 1)),
        ("fsdp", 256, 1, (16, 16), (16, 16, 1)),  # one axis of v5e:16x16, 16 rather than 256
        ("fsdp", 512, 1, (8, 8, 8), (8, 64, 1)),  # two axes of v4:8x8x8
        ("fsdp", 512, 2, (16, 16), (32, 16, 1)),  # slices multiply the copies
        ("fsdp", 32, 4, (), (4, 8, 1)),  # inside a host of 8 GPUs
        ("fsdp+tensor", 1024, 1, (16, 32), (16, 32, 2)),  # more devices than groups
    ],
)
def test_chosen_sizes(strategy, devices, slices, torus, expected):
    found = Partitioner(strategy).choose_sizes(devices, slices, 512, WIDTHS, torus)
    assert tuple(found[axis] for axis in AXES) == expected


@given(
    st.sampled_from(["data", "fsdp", "tensor", "fsdp+tensor"]),
    st.integers(1, 6),
    st.integers(0, 2),
    st.integers(0, 7),
    st.integers(1, 24),
)
def test_chosen_sizes_fit(strategy, log_devices, log_slices, log_groups, width):
    devices, slices, groups = 2**log_devices, 2 ** min(log_slices, log_devices), 2**log_groups
    widths = {"fsdp": width, "tensor": width}
    try:
        found = Partitioner(strategy).choose_sizes(devices, slices, groups, widths)
    except UserError as error:
        assert "tensor" in strategy and "finds no number" in str(error)
        return
    assert math.prod(found.values()) == devices
    assert width % found["fsdp"] == 0 and width % found["tensor"] == 0
    assert devices // slices % (found["fsdp"] * found["tensor"]) == 0
    assert groups % found["fsdp"] == 0


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"strategy": "zero"}, "strategy='zero' must be one of data, fsdp, tensor, fsdp.tensor"),
        ({"strategy": "fsdp", "fsdp": 0}, "fsdp=0 must be a whole number from 1 on"),
        ({"strategy": "data", "fsdp": 4}, "fsdp=4 needs the strategy 'fsdp' or 'fsdp.tensor'"),
    ],
)
def test_bad_settings_get_a_sentence(settings, words):
    with pytest.raises(UserError, match=words):
        Partitioner(**settings)


@pytest.mark.parametrize(
    ("sizes", "devices", "slices", "words"),
    [
        ({"fsdp": 3}, 8, 1, "fsdp=3 x tensor=1 does not fit 8 devices: .* set fsdp to 2 or 4"),
        ({"data": 3, "fsdp": 2}, 8, 1, "data=3 x fsdp=2 x tensor=1 does not fit"),
        ({"fsdp": 16}, 16, 2, "does not fit 16 devices in 2 slices: .* set fsdp to 8"),
    ],
)
def test_sizes_that_do_not_fit_name_those_that_do(sizes, devices, slices, words):
    with pytest.raises(UserError, match=words):
        Partitioner("fsdp", **sizes).choose_sizes(devices, slices, 64, WIDTHS)


def parameter(*shape):
    return jax.ShapeDtypeStruct(shape, np.float32)


def test_a_width_that_the_mesh_does_not_divide_is_named():
    layout = Layout(AbstractMesh((1, 24, 1), AXES))
    axes, params = (
        {"kernel": SimpleNamespace(names=("embed", "joined_kv"))},
        {"kernel": parameter(1280, 512)},
    )
    with pytest.raises(
        UserError, match="kernel is 1280 wide where fsdp=24 .* set fsdp to 20 or 32"
    ):
        layout.parameters(axes, params)


def test_a_large_parameter_that_would_be_copied_is_an_error():
    layout = Layout(AbstractMesh((1, 4, 1), AXES))
    axes, params = (
        {"table": SimpleNamespace(names=("layers", "length"))},
        {"table": parameter(1024, 1024)},
    )
    with pytest.raises(UserError, match="table with 1,048,576 elements would be copied"):
        layout.parameters(axes, params)
    small = {"table": parameter(1024, 1023)}
    assert layout.parameters(axes, small)["table"].spec == PartitionSpec(None, None)
    copied = Layout(AbstractMesh((4, 1, 1), AXES))  # meant to copy
    assert copied.parameters(axes, params)["table"].is_fully_replicated


@pytest.mark.parametrize(
    ("groups", "ways", "nearest"), [(6, 4, "4 or 8"), (3, 4, "4"), (17, 8, "16 or 24")]
)
def test_the_nearest_numbers_of_groups_are_named(groups, ways, nearest):
    layout = Layout(AbstractMesh((ways // 2, 2, 1), AXES))
    with pytest.raises(
        UserError, match=f"A batch of {groups} groups .* set BATCH_SIZE to {nearest}.$"
    ):
        layout.require_groups(groups)
    layout.require_groups(2 * ways)


def test_slices_lie_along_data_and_their_devices_within():
    """Devices of 2 hosts with 4 GPUs, given in any order: a host is never cut by `fsdp`."""
    devices = [
        SimpleNamespace(id=i, platform="gpu", process_index=i // 4)
        for i in (5, 2, 7, 0, 3, 6, 1, 4)
    ]
    found = arrange(devices, 2, {"data": 2, "fsdp": 4, "tensor": 1})
    assert [[d.id for d in row[:, 0]] for row in found] == [[0, 1, 2, 3], [4, 5, 6, 7]]


def test_an_activation_is_cut_by_its_batch_alone_and_a_kernel_by_both():
    layout = Layout(AbstractMesh((2, 2, 2), AXES), 1)
    assert layout.spec(("embed", "joined_kv"), (8, 8)) == PartitionSpec("fsdp", "tensor")
    assert layout.spec(("embed", "mlp"), (8, 8)) == PartitionSpec(None, ("tensor", "fsdp"))
    assert layout.spec(("batch", "length", "embed"), (8, 8, 8))[2] is None
    pairs = itertools.product(("vocab", "joined_kv"), (1, 2**18))
    for name, least in pairs:
        cut = Layout(layout.mesh, least).spec((name, "embed"), (8, 8))
        assert cut == PartitionSpec("tensor", "fsdp" if least == 1 else None)


def test_cores_of_a_chip_lie_along_tensor_and_the_longest_axis_along_fsdp():
    """v3 with 2 x 4 chips of two cores, numbered in no order of use."""
    devices = [
        SimpleNamespace(
            id=7 * i % 16, platform="tpu", coords=(i % 2, i // 2 % 4, 0), core_on_chip=i // 8
        )
        for i in range(16)
    ]
    found = arrange(devices, 1, {"data": 2, "fsdp": 4, "tensor": 2})
    for chips in found.reshape(-1, 2):
        assert chips[0].coords == chips[1].coords
        assert [core.core_on_chip for core in chips] == [0, 1]
    for row, chips in enumerate(found[:, :, 0]):
        assert [chip.coords for chip in chips] == [(row, place, 0) for place in range(4)]


def test_heads_that_tensor_does_not_divide_are_refused():
    model, batch = tiny_model(), tiny_groups(tiny_config(), 4)
    stream = SimpleNamespace(
        input_shapes={name: leaf.shape for name, leaf in batch.items()}, input_types={}
    )
    devices = [SimpleNamespace(id=i, platform="gpu", process_index=0) for i in range(4)]
    partitioner = SimpleNamespace(
        layout=lambda *_: Layout(AbstractMesh((1, 1, 4), AXES))  # the tiny model has two heads
    )
    with pytest.raises(UserError, match="tensor=4 does not divide .* 2 attention heads: .* to 2"):
        lay_out(model, stream, partitioner, devices)


def test_a_strategy_that_finds_no_number_is_refused():
    widths = {"fsdp": 6, "tensor": 5}
    with pytest.raises(UserError, match="'tensor' finds no number from 2 on"):
        Partitioner("tensor").choose_sizes(8, 1, 8, widths)
