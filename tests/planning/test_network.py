"""Bandwidths and times against what the links of small tori give, worked out by hand."""

from types import SimpleNamespace

import pytest

from simvlm_jax.planning.chips import CHIPS
from simvlm_jax.planning.collectives import Collective
from simvlm_jax.planning.network import bandwidth, traffic
from simvlm_jax.planning.topologies import Topology

LINK = {name: CHIPS[name].link_bandwidth for name in CHIPS}


def device(*coords, slice_index=0, core=0):
    coords = (*coords, 0, 0)[:3]
    return SimpleNamespace(
        platform="tpu", coords=coords, slice_index=slice_index, core_on_chip=core
    )


def machine(kind, *shape, slices=1):
    return Topology(f"{kind}:{'x'.join(map(str, shape))}", CHIPS[kind], shape, slices, ())


def along(axis, places, ndim=2):
    return [device(*(place if a == axis else 0 for a in range(ndim))) for place in places]


@pytest.mark.parametrize(
    ("topology", "devices", "links"),
    [
        (machine("v5e", 16, 16), along(0, range(16)), 2),  # a ring round the whole pod
        (machine("v5e", 8, 16), along(0, range(8)), 1),  # a line: half a pod's axis is open
        (machine("v5e", 16, 16), along(1, range(8)), 1),  # half of a ring is a line
        (machine("v5e", 16, 16), along(1, range(0, 16, 2)), 2 / 2),  # every second one
        (machine("v4", 8, 8, 8), along(2, range(8), 3), 2),
        (machine("v4", 2, 2, 4), along(2, range(4), 3), 1),  # less than a cube is open
        (machine("v3", 16, 32), along(0, range(16)), 1),
        (machine("v3", 16, 32), along(1, range(32)), 2),
    ],
)
def test_links_along_one_axis(topology, devices, links):
    chip = topology.chip
    assert bandwidth(devices, topology) == pytest.approx(links * chip.link_bandwidth / chip.devices)


def test_two_axes_have_twice_the_links():
    cube = machine("v5p", 8, 8, 8)
    plane = [device(x, y) for x in range(8) for y in range(8)]
    assert bandwidth(plane, cube) == pytest.approx(4 * LINK["v5p"])


def test_cores_of_a_chip_talk_through_its_memory():
    topology = machine("v3", 16, 32)
    cores = [device(0, 0, core=0), device(0, 0, core=1)]
    assert bandwidth(cores, topology) == CHIPS["v3"].hbm_bandwidth / 2


def seconds(one, topology, order):
    return traffic([one], topology, order)


def test_a_gather_in_a_ring_takes_its_bytes_over_two_links():
    ring = along(0, range(16))
    one = Collective("all-gather", 15e9, 3, tuple(range(16)), "bf16")
    found = seconds(one, machine("v5e", 16, 16), ring)
    assert found.bytes == {"ici": {"all-gather": 45e9}, "dcn": {}}
    assert found.seconds == {"ici": pytest.approx(45e9 / (2 * 45e9)), "dcn": 0.0}


@pytest.mark.parametrize(("shift", "hops"), [(1, 1), (3, 3), (15, 1), (8, 8)])
def test_a_shift_in_a_ring_takes_the_shorter_way(shift, hops):
    """16 senders with 4 links each carry 16 messages, each over some links."""
    ring = along(0, range(16))
    pairs = tuple((i, (i + shift) % 16) for i in range(16))
    one = Collective("collective-permute", 45e9, 1, pairs[0], "f32", pairs)
    found = seconds(one, machine("v5e", 16, 16), ring)
    assert found.seconds["ici"] == pytest.approx(max(hops, 1) / 4)


def test_cores_of_one_group_share_what_their_chip_gets():
    """A ring of 16 chips with both cores each goes as fast as one of a core each, twice as fast."""
    topology = machine("v3", 16, 32)
    both = [device(0, y, core=core) for y in range(32) for core in (0, 1)]
    one = [device(0, y) for y in range(32)]
    assert bandwidth(both, topology) == pytest.approx(2 * bandwidth(one, topology))


def test_over_slices_each_device_sends_its_part():
    """An all-reduce of b bytes over 2 slices of 4: inside 2b 3/4, across 2 (b/4) 1/2 = b/4."""
    order = [device(x, slice_index=s) for s in range(2) for x in range(4)]
    size = 8e9
    one = Collective("all-reduce", 2 * size * 7 / 8, 1, tuple(range(8)), "f32")
    found = seconds(one, machine("v5e", 4, 4, slices=2), order)
    assert found.bytes["ici"]["all-reduce"] == pytest.approx(2 * size * 3 / 4)
    assert found.bytes["dcn"]["all-reduce"] == pytest.approx(size / 4)
    assert found.seconds["dcn"] == pytest.approx(size / 4 / CHIPS["v5e"].dcn_bandwidth)


def test_between_slices_alone_all_goes_over_dcn():
    order = [device(0, slice_index=s) for s in range(2)]
    one = Collective("all-reduce", 6e9, 2, (0, 1), "f32")
    found = seconds(one, machine("v5e", 4, 4, slices=2), order)
    assert found.bytes == {"ici": {}, "dcn": {"all-reduce": 12e9}}
    pairs = ((0, 1), (1, 0))
    sent = Collective("collective-permute", 6e9, 2, (0, 1), "f32", pairs)
    assert seconds(sent, machine("v5e", 4, 4, slices=2), order).bytes["dcn"] == {
        "collective-permute": 12e9
    }
