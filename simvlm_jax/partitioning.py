"""Where every array lies: logical axis names -> mesh axes, and meshes for known topologies.

A mesh has three axes. Along `data` parameters are copied: it spans the slices of a pod (DCN) and
what the other two leave of each. Along `fsdp` every large parameter is cut by its model width,
gathered where it is used, and its gradient is reduced and scattered (ZeRO-3). Along `tensor` heads,
hidden units and words are cut, and activations are reduced. A batch is cut along `data` and `fsdp`.

A strategy says which of the last two may be larger than 1; the rules are the same for all.
"""

import contextlib
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from simvlm_jax.errors import UserError

AxisRules = tuple[tuple[str, str | tuple[str, ...] | None], ...]
AXES = ("data", "fsdp", "tensor")
STRATEGIES = {
    "data": (),
    "fsdp": ("fsdp",),
    "tensor": ("tensor",),
    "fsdp+tensor": ("fsdp", "tensor"),
}
MOST_FSDP = 64  # on more devices a gather takes more and smaller messages, and saves little
MOST_FSDP_UNKNOWN = 16  # where the network's axes are not known
# Elements of a layer's parameter: to gather less costs more time than the copy costs memory.
FEWEST_CUT = 2**18
LARGE = 2**20  # elements; a parameter of that size must not be copied to every device

# The first rule of a name whose mesh axes are still free decides (as in T5X). The names are T5X's,
# and those of the image side. One list does for parameters and activations: in an activation
# "batch" takes fsdp first, so "embed" is cut in parameters only.
RULES: AxisRules = (
    ("batch", ("data", "fsdp")),
    ("image_batch", ("data", "fsdp", "tensor")),  # convolutions have no heads to cut
    ("vocab", "tensor"),
    # Hidden units are many: to cut 5,120 of them in 16 leaves whole tiles, and 1,280 of width not.
    ("mlp", ("tensor", "fsdp")),
    ("mlp", "tensor"),  # of an activation, whose batch has fsdp
    ("heads", "tensor"),
    ("joined_kv", "tensor"),
    ("embed", "fsdp"),
    # Not fsdp: kernels are small, and to cut their gradients the compiler would rather gather the
    # images of 64 devices than add up the gradients.
    ("conv_out", None),
    ("kv", None),
    ("classes", None),  # few, or 3,129, which few numbers divide: their kernel is cut as "mlp" is
    ("length", None),
    ("layers", None),
    ("abspos_buckets", None),
    ("relpos_buckets", None),
    ("relpos_heads", None),
    ("relpos_rows", None),
    ("relpos_columns", None),
    ("conv_height", None),
    ("conv_width", None),
    ("conv_in", None),
)

# Rules for T5X, whose meshes have the axes "data" and "model", for names that it does not know.
OWN_AXIS_RULES: AxisRules = (
    ("image_batch", "data"),
    ("conv_height", None),
    ("conv_width", None),
    ("conv_in", None),
    ("conv_out", "model"),  # channels, as "mlp" is: the widest axis of a convolution
    ("classes", None),
    ("relpos_heads", None),  # not "heads": a table is small, and 16 devices do not divide 12 heads
    ("relpos_rows", None),
    ("relpos_columns", None),
)


class Layout:
    """A mesh with the rules: says where parameters, batches and activations lie."""

    def __init__(self, mesh: Mesh, fewest_cut: int = FEWEST_CUT) -> None:
        """Takes a mesh with the axes `AXES`, and which parameters are too small to be cut."""
        self.mesh, self.fewest_cut = mesh, fewest_cut

    @property
    def sizes(self) -> dict[str, int]:
        """How many devices each mesh axis has."""
        return dict(self.mesh.shape)

    @property
    def batch_ways(self) -> int:
        """Over how many devices the examples of a batch are shared out."""
        return self.sizes["data"] * self.sizes["fsdp"]

    @property
    def by_group(self) -> NamedSharding:
        """Shares the first axis of an array out over the devices that read different data."""
        return NamedSharding(self.mesh, PartitionSpec(("data", "fsdp")))

    @property
    def replicated(self) -> NamedSharding:
        """Puts a copy of an array on each device."""
        return NamedSharding(self.mesh, PartitionSpec())

    @contextlib.contextmanager
    def rules(self) -> Iterator[None]:
        """Lets `nn.with_logical_constraint` in the network mean this mesh, while it is traced."""
        with self.mesh, nn.logical_axis_rules(RULES):
            yield

    def spec(self, names: Sequence[str | None], shape: tuple[int, ...]) -> PartitionSpec:
        """Where a parameter is cut.

        Args:
          names: its logical axes.
          shape: its sizes; one of few elements is not cut along `fsdp`.
        """
        entries = []
        for axes in _mesh_axes(names, shape, self.fewest_cut):
            used = tuple(axis for axis in axes if self.sizes[axis] > 1)
            entries.append(used if len(used) > 1 else used[0] if used else None)
        return PartitionSpec(*entries)

    def parameters(self, params_axes: Any, params: Any) -> Any:
        """Shardings of all parameters.

        Args:
          params_axes: T5X's 'params_axes' collection, leaves with `names`.
          params: arrays or shapes, a tree of the same structure.

        Returns:
          A tree of `NamedSharding` like `params`.

        Raises:
          UserError: a mesh axis does not divide a parameter, or a large one would be copied to
            every device although the mesh is meant to cut parameters.
        """
        found = []
        for path, names, leaf in _named(params_axes, params):
            spec = self.spec(names, leaf.shape)
            self._require_fit(path, leaf, spec)
            found.append(NamedSharding(self.mesh, spec))
        return jax.tree.unflatten(jax.tree.structure(params), found)

    def _require_fit(self, path: str, leaf: Any, spec: PartitionSpec) -> None:
        for size, axes in zip(leaf.shape, map(_axes_of, spec), strict=True):
            ways = math.prod(self.sizes[axis] for axis in axes)
            if size % ways:
                last = axes[-1]
                others = ways // self.sizes[last]
                fits = nearest_divisors(size // math.gcd(size, others), self.sizes[last])
                raise UserError(
                    f"{path} is {size} wide where {' x '.join(axes)}={ways} would cut it, which "
                    f"does not divide it: set {last} to {fits}."
                )
        cut = math.prod(self.sizes[axis] for entry in spec for axis in _axes_of(entry))
        if cut == 1 and leaf.size >= LARGE and self.sizes["fsdp"] * self.sizes["tensor"] > 1:
            raise UserError(
                f"{path} with {leaf.size:,} elements would be copied to every device, although "
                f"the mesh is {describe(self.sizes)}: give one of its axes a rule in "
                "partitioning.RULES, or train with the strategy 'data'."
            )

    def require_groups(self, groups: int) -> None:
        """Checks that a batch can be shared out evenly.

        Raises:
          UserError: it cannot; it names the nearest numbers that can.
        """
        ways = self.batch_ways
        if groups % ways:
            lower = groups // ways * ways
            close = f"{lower} or {lower + ways}" if lower else f"{ways}"
            raise UserError(
                f"A batch of {groups} groups cannot be shared out evenly over {ways} devices: set "
                f"BATCH_SIZE to {close}."
            )


class Partitioner:
    """Chooses a mesh: by a strategy, or as it is told."""

    def __init__(
        self,
        strategy: str = "data",
        data: int | None = None,
        fsdp: int | None = None,
        tensor: int | None = None,
        fewest_cut: int = FEWEST_CUT,
    ) -> None:
        """Keeps the settings.

        Args:
          strategy: 'data', 'fsdp', 'tensor' or 'fsdp+tensor'.
          data: devices along `data`; None takes what the others leave.
          fsdp: devices along `fsdp`; None chooses, see `choose_sizes`.
          tensor: devices along `tensor`; None chooses.
          fewest_cut: parameters of fewer elements are copied, not cut along `fsdp`.

        Raises:
          UserError: an unknown strategy, or a size it does not have.
        """
        if strategy not in STRATEGIES:
            raise UserError(f"strategy={strategy!r} must be one of {', '.join(STRATEGIES)}.")
        self.strategy, self.fewest_cut = strategy, fewest_cut
        self.wanted = {"data": data, "fsdp": fsdp, "tensor": tensor}
        for axis, size in self.wanted.items():
            if size is not None and (not isinstance(size, int) or size < 1):
                raise UserError(f"{axis}={size!r} must be a whole number from 1 on, or None.")
            if axis != "data" and size not in (None, 1) and axis not in STRATEGIES[strategy]:
                fitting = [name for name, axes in STRATEGIES.items() if axis in axes]
                raise UserError(
                    f"{axis}={size} needs the strategy {' or '.join(map(repr, fitting))}, not "
                    f"{strategy!r}."
                )

    def layout(
        self, groups: int, params_axes: Any, params: Any, devices: Sequence[Any] | None = None
    ) -> Layout:
        """The layout for these devices.

        Args:
          groups: leading size of a batch, which is shared out along `data` and `fsdp`.
          params_axes: T5X's 'params_axes' collection of the model.
          params: its parameters, arrays or shapes.
          devices: real ones or those of a described topology; by default all there are.

        Raises:
          UserError: the sizes do not fit the devices, or the groups do not divide over them.
        """
        devices = list(jax.devices() if devices is None else devices)
        slices = slice_count(devices)
        widths = cut_widths(params_axes, params, self.fewest_cut)
        sizes = self.choose_sizes(len(devices), slices, groups, widths, torus_axes(devices))
        layout = Layout(Mesh(arrange(devices, slices, sizes), AXES), self.fewest_cut)
        layout.require_groups(groups)
        return layout

    def choose_sizes(
        self,
        devices: int,
        slices: int,
        groups: int,
        widths: Mapping[str, int],
        torus: Sequence[int] = (),
    ) -> dict[str, int]:
        """Sizes of the mesh's axes.

        Where nothing is set: `tensor` is 1, or what is needed so that a batch is shared out over no
        more devices than it has groups (2 where it is the strategy's only axis). `fsdp` takes whole
        axes of the network, whose rings are its fastest way, up to 64 devices: 16 of v5e:16x16, 64
        of v4:8x8x8; elsewhere up to 16. It divides the model's widths, the groups and the devices
        of a slice. `data` is the rest.

        Args:
          devices: all of them.
          slices: groups of devices with a fast network inside.
          groups: of a batch.
          widths: see `cut_widths`.
          torus: lengths of the axes of a slice's network, where known.

        Raises:
          UserError: the sizes do not multiply to the devices; it names some that do.
        """
        within, axes = devices // slices, STRATEGIES[self.strategy]
        tensor, fsdp, data = (self.wanted[axis] for axis in ("tensor", "fsdp", "data"))
        if tensor is None:
            least = max(-(-devices // groups), 1 if "fsdp" in axes else 2)
            fits = [n for n in common_divisors(within, widths["tensor"]) if n >= least]
            tensor = 1
            if "tensor" in axes:
                if not fits:
                    raise UserError(
                        f"The strategy {self.strategy!r} finds no number from {least} on "
                        f"that divides the {within} of a slice and the model's widths: use 'fsdp' "
                        "or 'data', or a larger batch."
                    )
                tensor = min(fits)
        if fsdp is None:
            fits = common_divisors(within // tensor, math.gcd(widths["fsdp"], groups))
            fsdp = _best_degree(fits, torus) if "fsdp" in axes else 1
        data = max(1, devices // (fsdp * tensor)) if data is None else data
        sizes = {"data": data, "fsdp": fsdp, "tensor": tensor}
        self._require_product(sizes, devices, slices)
        return sizes

    def _require_product(self, sizes: Mapping[str, int], devices: int, slices: int) -> None:
        within = devices // slices
        inner = sizes["fsdp"] * sizes["tensor"]
        if math.prod(sizes.values()) == devices and within % inner == 0:
            return
        free = "fsdp" if sizes["fsdp"] > 1 else "tensor"
        close = nearest_divisors(within // math.gcd(within, inner // sizes[free]), sizes[free])
        where = f"{devices} devices" + (f" in {slices} slices" if slices > 1 else "")
        raise UserError(
            f"A mesh of {describe(sizes)} does not fit {where}: leave data unset and set {free} to "
            f"{close}."
        )


def cut_widths(params_axes: Any, params: Any, fewest_cut: int = FEWEST_CUT) -> dict[str, int]:
    """The greatest number that divides all sizes which a mesh axis cuts, for fsdp and tensor.

    Args:
      params_axes: T5X's 'params_axes' collection.
      params: arrays or shapes, a tree of the same structure.
      fewest_cut: parameters of fewer elements are not cut along `fsdp`.

    Returns:
      {"fsdp": ..., "tensor": ...}; 0 where nothing is cut.
    """
    widths = {"fsdp": 0, "tensor": 0}
    for _, names, leaf in _named(params_axes, params):
        for axis, size in cut_sizes(names, leaf.shape, fewest_cut):
            widths[axis] = math.gcd(widths[axis], size)
    return widths


def cut_sizes(
    names: Sequence[str | None], shape: tuple[int, ...], fewest_cut: int = FEWEST_CUT
) -> list[tuple[str, int]]:
    """The mesh axes that cut a parameter, each with the size it cuts."""
    entries = zip(_mesh_axes(names, shape, fewest_cut), shape, strict=True)
    return [(axis, size) for axes, size in entries for axis in axes]


def _mesh_axes(
    names: Sequence[str | None], shape: tuple[int, ...], fewest_cut: int
) -> list[tuple[str, ...]]:
    """The mesh axes along which each dimension of a parameter is cut."""
    entries = nn.logical_to_mesh_axes(tuple(names), RULES)
    # Layers are gathered one by one, so what counts is the size of one.
    sizes = (size for name, size in zip(names, shape, strict=True) if name != "layers")
    small = math.prod(sizes) < fewest_cut
    return [
        tuple(axis for axis in _axes_of(entry) if not (small and axis == "fsdp"))
        for entry in entries
    ]


def _axes_of(entry: str | tuple[str, ...] | None) -> tuple[str, ...]:
    """An entry of a `PartitionSpec` as a tuple of axes."""
    if entry is None:
        return ()
    return (entry,) if isinstance(entry, str) else tuple(entry)


def _named(params_axes: Any, params: Any) -> Iterator[tuple[str, Sequence[str | None], Any]]:
    """Path, logical axes and value of every parameter."""
    is_axes = lambda node: hasattr(node, "names")  # noqa: E731
    axes = jax.tree.leaves(params_axes, is_leaf=is_axes)
    leaves = jax.tree_util.tree_leaves_with_path(params)
    for (path, leaf), node in zip(leaves, axes, strict=True):
        yield jax.tree_util.keystr(path, simple=True, separator="/"), node.names, leaf


def _best_degree(fits: Sequence[int], torus: Sequence[int]) -> int:
    """The largest of some numbers that whole axes of a torus multiply to, or up to 16."""
    whole = {math.prod(part) for n in (1, 2, 3) for part in itertools.combinations(torus, n)}
    on_axes = [n for n in fits if n in whole and 1 < n <= MOST_FSDP]
    return max(on_axes or [n for n in fits if n <= MOST_FSDP_UNKNOWN])


def torus_axes(devices: Sequence[Any]) -> tuple[int, ...]:
    """Lengths of the axes of a TPU slice's network; nothing for other devices."""
    if devices[0].platform != "tpu":
        return ()
    first = slice_index(devices[0])
    coords = [device.coords for device in devices if slice_index(device) == first]
    return tuple(len(set(places)) for places in zip(*coords, strict=True) if len(set(places)) > 1)


def common_divisors(number: int, other: int) -> list[int]:
    """Numbers that divide both, in ascending order; 0 is divided by all."""
    return [n for n in range(1, number + 1) if number % n == other % n == 0]


def describe(sizes: Mapping[str, int]) -> str:
    """A mesh in words, for example "data=32 x fsdp=16 x tensor=1"."""
    return " x ".join(f"{axis}={size}" for axis, size in sizes.items())


def nearest_divisors(number: int, wanted: int) -> str:
    """The divisors of a number on both sides of a wanted one, as "8" or "8 or 16"."""
    divisors = [n for n in range(1, number + 1) if number % n == 0]
    below = [n for n in divisors if n < wanted][-1:]
    return " or ".join(str(n) for n in below + [n for n in divisors if n > wanted][:1])


def slice_count(devices: Sequence[Any]) -> int:
    """How many groups with a fast network inside: TPU slices, or hosts of several GPUs."""
    return len({slice_index(device) for device in devices})


def slice_index(device: Any) -> int:
    """Which TPU slice, or host of several GPUs, a device belongs to; CPU devices are of one."""
    if device.platform == "gpu":  # JAX runs one process a host there
        return device.process_index
    return getattr(device, "slice_index", 0) or 0


def arrange(devices: Sequence[Any], slices: int, sizes: Mapping[str, int]) -> np.ndarray:
    """Devices as an array [data, fsdp, tensor], neighbours of a fast network along the last two."""
    shape = tuple(sizes[axis] for axis in AXES)
    if devices[0].platform != "tpu":
        by_slice = sorted(devices, key=lambda device: (slice_index(device), device.id))
        return np.array(by_slice).reshape(shape)
    inside = (shape[0] // slices, *shape[1:])
    if slices == 1 and _cores(devices) > 1:
        return _by_chip(devices, shape)
    if slices == 1:
        return mesh_utils.create_device_mesh(shape, devices, allow_split_physical_axes=True)
    return mesh_utils.create_hybrid_device_mesh(
        inside, (slices, 1, 1), devices, allow_split_physical_axes=True
    )


def _cores(devices: Sequence[Any]) -> int:
    """JAX devices on a chip: 2 for TPU v2 and v3."""
    return len(devices) // len({tuple(device.coords) for device in devices})


def _by_chip(devices: Sequence[Any], shape: tuple[int, ...]) -> np.ndarray:
    """Two cores a chip: `tensor` takes them first, then `fsdp` the network's longest axis.

    `mesh_utils` takes such devices by their number, which follows no axis of the network.
    """
    lengths = [len(set(places)) for places in zip(*(d.coords for d in devices), strict=True)]
    axes = sorted(range(len(lengths)), key=lambda axis: lengths[axis])
    ordered = sorted(devices, key=lambda d: (*(d.coords[a] for a in axes), d.core_on_chip))
    return np.array(ordered).reshape(shape)
