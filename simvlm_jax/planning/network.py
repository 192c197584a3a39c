"""How long collectives take at least on a machine's networks.

A group of TPU chips that differ along some axes of the torus may use the links of all of these at
once: two an axis where the group goes round it, else one; where its members do not lie side by
side, others use the links between them as well. A permutation may use all links of the chips that
send, each as often as it is on the way. Devices of one chip share its links. A group over several
slices first reduces (or last gathers) within each; across, every device sends its part.
"""

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

from simvlm_jax.partitioning import slice_index
from simvlm_jax.planning.collectives import Collective
from simvlm_jax.planning.topologies import Topology

_CLOSED_BY_SIZE = {"v3": 32, "v5e": 16, "v6e": 16}  # a 2-D torus is closed at the pod's edge only
_CUBE = 4  # 3-D tori are made of cubes of 4 x 4 x 4, and closed in multiples of it


@dataclasses.dataclass
class Traffic:
    """What a device sends in a step, and how long that takes at least.

    Attributes:
      bytes: by network ("ici" or "dcn") and kind of collective.
      seconds: by network, of all its collectives one after the other. Those along different axes
        could overlap; XLA rarely runs two at once.
    """

    bytes: dict[str, dict[str, float]]
    seconds: dict[str, float]


def traffic(found: Iterable[Collective], topology: Topology, order: Sequence[Any]) -> Traffic:
    """Adds up collectives.

    Args:
      found: the collectives of a step.
      topology: the machine.
      order: its devices in the order of the mesh, which a collective's numbers refer to.
    """
    result = Traffic({"ici": {}, "dcn": {}}, {"ici": 0.0, "dcn": 0.0})
    for one in found:
        devices = [order[number] for number in one.group]
        ways = [(order[start], order[end]) for start, end in one.pairs]
        for network, sent, speed in _networks(one, devices, ways, topology):
            total = sent * one.times
            kinds = result.bytes[network]
            kinds[one.kind] = kinds.get(one.kind, 0.0) + total
            result.seconds[network] += total / speed if speed else 0.0
    return result


def _networks(
    one: Collective,
    devices: Sequence[Any],
    ways: Sequence[tuple[Any, Any]],
    topology: Topology,
) -> list[tuple[str, float, float]]:
    """(network, bytes that a device sends, bytes per second) of one collective."""
    if topology.chip is None:
        return [("ici", one.bytes_sent, 0.0)]
    slow = topology.chip.dcn_bandwidth / topology.chip.devices
    if ways:
        if any(slice_index(start) != slice_index(end) for start, end in ways):
            return [("dcn", one.bytes_sent, slow)]
        return [("ici", one.bytes_sent, _permutation_speed(ways, topology))]
    by_slice: dict[int, list[Any]] = {}
    for device in devices:
        by_slice.setdefault(slice_index(device), []).append(device)
    inside = next(iter(by_slice.values()))
    if len(by_slice) == 1:
        return [("ici", one.bytes_sent, bandwidth(devices, topology))]
    if len(inside) == 1:
        return [("dcn", one.bytes_sent, slow)]
    members, within, slices = len(devices), len(inside), len(by_slice)
    # b (n - 1) / n was counted for the whole group: first undo it.
    share = one.bytes_sent * members / (members - 1)
    return [
        ("ici", share * (within - 1) / within, bandwidth(inside, topology)),
        ("dcn", share / within * (slices - 1) / slices, slow),
    ]


def bandwidth(devices: Sequence[Any], topology: Topology) -> float:
    """Bytes per second that each device of a group sends at best."""
    chip = topology.chip
    if not topology.is_tpu:
        return chip.link_bandwidth
    links = 0.0
    for axis, size in enumerate(topology.shape):
        places = sorted({device.coords[axis] for device in devices})
        if len(places) == 1:
            continue
        gap = places[1] - places[0]
        links += (2 if _goes_round(topology, axis, len(places) * gap, size) else 1) / gap
    if not links:  # the cores of one chip, through its memory
        return chip.hbm_bandwidth / chip.devices
    # Cores of a chip that are in one group pass on one copy; in different groups they share links.
    cores = len(devices) / len({tuple(device.coords) for device in devices})
    return links * chip.link_bandwidth * cores / chip.devices


def _permutation_speed(ways: Sequence[tuple[Any, Any]], topology: Topology) -> float:
    """Bytes per second of each device, all links of the machine shared by all ways evenly."""
    chip = topology.chip
    if not topology.is_tpu:
        return chip.link_bandwidth
    hops = sum(
        _distance(topology, axis, size, start.coords[axis], end.coords[axis])
        for start, end in ways
        for axis, size in enumerate(topology.shape)
    )
    if not hops:
        return chip.hbm_bandwidth / chip.devices
    links = 2 * sum(size > 1 for size in topology.shape)  # out of every chip
    senders = len({tuple(start.coords) for start, _ in ways})
    every = links * senders * chip.link_bandwidth / hops
    return min(every, links * chip.link_bandwidth / chip.devices)


def _distance(topology: Topology, axis: int, size: int, start: int, end: int) -> int:
    gap = abs(start - end)
    return min(gap, size - gap) if _goes_round(topology, axis, size, size) else gap


def _goes_round(topology: Topology, axis: int, extent: int, size: int) -> bool:
    """Whether the group reaches all along an axis whose ends are joined."""
    closed = _CLOSED_BY_SIZE.get(topology.chip.name)
    joined = size == closed if closed else size % _CUBE == 0 and min(topology.shape) >= _CUBE
    return joined and extent == size
