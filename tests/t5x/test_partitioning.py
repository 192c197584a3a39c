"""Where T5X's partitioner puts every parameter of every size, by shape alone."""

import math
import os
from pathlib import Path

import pytest

pytest.importorskip("t5x.train", reason="T5X is not installed")

from flax.traverse_util import flatten_dict  # noqa: E402

from golden.write import NETWORKS, configuration_of  # noqa: E402
from simvlm_jax import t5x_adapter  # noqa: E402
from simvlm_jax.model import PrefixLMModel  # noqa: E402
from simvlm_jax.training import optimizers as own_optimizers  # noqa: E402
from t5x import adafactor, optimizers, partitioning, utils  # noqa: E402

FOLDER = Path(__file__).parents[1] / "golden" / "t5x_partitioning"
STYLES = ((1, 1), (1, 2), (2, 2))  # of activations, of parameters
MESHES = ((2, 4), (16, 16))  # data, model
LARGE = 2**20
SIZES = [name for name in NETWORKS if name != "tiny"]  # 24 channels do not divide over 16 devices


def train_state(name, style, optimizer, own_rules=True):
    """Shapes and mesh axes of a whole train state under T5X's own initializer."""
    model = PrefixLMModel(configuration_of(name), optimizer_def=optimizer)
    rules = partitioning.standard_logical_axis_rules(
        *style, t5x_adapter.axis_rules() if own_rules else None
    )
    partitioner = partitioning.PjitPartitioner(num_partitions=1, logical_axis_rules=rules)
    initializer = utils.TrainStateInitializer(
        optimizer, model.get_initial_variables, {}, partitioner
    )
    return initializer.global_train_state_shape, initializer.train_state_axes


def adamw():
    return optimizers.OptaxWrapper(own_optimizers.adamw(total_steps=100, ema_decay=0.9))


def t5x_adafactor():
    return adafactor.Adafactor(
        1e-3, decay_rate=0.8, step_offset=0, logical_factor_rules=t5x_adapter.factor_rules()
    )


@pytest.fixture(autouse=True)
def forget_gin():
    yield
    import gin

    gin.clear_config()


def rows(name, style, own_rules=True):
    shapes, axes = train_state(name, style, adamw(), own_rules)
    flat_axes = flatten_dict(axes.params, sep="/")
    for path, leaf in flatten_dict(shapes.params, sep="/").items():
        spec = tuple(flat_axes[path] or ())
        yield path, leaf.shape, spec + (None,) * (leaf.ndim - len(spec))


def on_one_device(shape, spec, mesh):
    sizes = dict(zip(("data", "model"), mesh, strict=True))
    result = []
    for size, axis in zip(shape, spec, strict=True):
        assert size % sizes.get(axis, 1) == 0, f"{axis} of {mesh} does not divide {shape}"
        result.append(size // sizes.get(axis, 1))
    return tuple(result)


def table(name, style):
    lines = [f"parameter  shape  (mesh axes)  on one device of {MESHES[0]}, of {MESHES[1]}"]
    for path, shape, spec in rows(name, style):
        parts = " ".join(str(on_one_device(shape, spec, mesh)) for mesh in MESHES)
        names = ", ".join(str(axis) for axis in spec)
        lines.append(f"{path}  {shape}  ({names})  {parts}")
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("style", (STYLES[0], STYLES[-1]), ids=str)
@pytest.mark.parametrize("name", ["base", "base_t5_style", "huge"])
def test_parameters_lie_as_in_the_golden_table(name, style):
    path = FOLDER / f"{name}_{style[0]}_{style[1]}.txt"
    if os.environ.get("WRITE_GOLDEN"):
        FOLDER.mkdir(exist_ok=True)
        path.write_text(table(name, style))
    assert table(name, style) == path.read_text(), "if it should: WRITE_GOLDEN=1 pytest tests/t5x"


@pytest.mark.parametrize("style", STYLES, ids=str)
@pytest.mark.parametrize("name", SIZES)
def test_no_large_parameter_is_replicated_and_all_divide(name, style):
    assert table(name, style)  # fails where a mesh does not divide a parameter
    replicated = [
        (path, shape)
        for path, shape, spec in rows(name, style)
        if math.prod(shape) >= LARGE and not any(spec)
    ]
    assert replicated == []


@pytest.mark.parametrize("name", ["tiny", "base", "huge"])
def test_t5x_s_own_rules_alone_shard_the_trunk(name):
    """Then the conv stage lies on every device: none of its kernels is large."""
    found = {path: (shape, spec) for path, shape, spec in rows(name, (1, 1), own_rules=False)}
    assert all(any(spec) for shape, spec in found.values() if math.prod(shape) >= LARGE)
    assert not any(any(spec) for path, (_, spec) in found.items() if "conv_stage" in path)


@pytest.mark.parametrize("style", STYLES, ids=str)
@pytest.mark.parametrize("name", SIZES)
def test_adafactor_knows_every_axis(name, style):
    shapes, axes = train_state(name, style, t5x_adafactor())
    states = flatten_dict(shapes.param_states, sep="/")
    assert len(states) > 0
    # Matrices are factored: a large parameter has no second moment of its own size.
    params = flatten_dict(shapes.params, sep="/")
    for path, leaf in params.items():
        if math.prod(leaf.shape) >= LARGE:
            v = getattr(shapes.param_states, "v", None) or _find(shapes.param_states, path)
            assert math.prod(v.v.shape) == 1, path


def _find(tree, path):
    for key in path.split("/"):
        tree = tree[key]
    return tree
