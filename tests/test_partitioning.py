"""Every axis name has one rule, T5X's or ours: without one it would be replicated in silence."""

import pytest

from golden.write import NETWORKS, configuration_of
from simvlm_jax.models.tables import parameter_rows
from simvlm_jax.partitioning import OWN_AXIS_RULES

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
    assert own <= used | {"image_batch"}  # of an activation
