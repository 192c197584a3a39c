"""What has to be the same in all processes of a run, and is compared before anything is trained."""

import collections
import hashlib
import importlib.util
import platform
import socket
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path

import simvlm_jax
from simvlm_jax import hosts
from simvlm_jax.errors import UserError
from simvlm_jax.gin_files import gin_root
from simvlm_jax.training.folder import digest_of

# They decide what is computed, or how a process reads the data.
PACKAGES = (
    "jax", "jaxlib", "libtpu", "jax-cuda12-plugin", "flax", "optax", "orbax-checkpoint",
    "tensorstore", "seqio", "tensorflow", "tensorflow-text", "array-record", "numpy", "pillow",
    "simplejpeg", "cykooz-resizer",
)  # fmt: skip


def require_same(configuration: str, data: Mapping[str, str]) -> str:
    """Compares this process with the others; all must call it.

    Args:
        configuration: The resolved gin text.
        data: Fingerprints of the data by task.

    Returns:
        A line on what they have in common.

    Raises:
        UserError: In every process, with those that differ from the most, and in what.
    """
    code = code_digest()
    own = {
        "the code (its commit, or files that were changed)": code,
        "the configuration": digest_of(configuration.encode())[:16],
        **{f"the version of {name}": version for name, version in versions().items()},
        **{f"the data of {task}": found for task, found in data.items()},
    }
    told = hosts.gather("fingerprints", {"host": socket.gethostname(), "values": own})
    differences = list(_differences([process["values"] for process in told]))
    if not differences:
        everyone = f"all {len(told)} processes have the same" if len(told) > 1 else "it has"
        found = ", ".join(f"{task} {value}" for task, value in data.items())
        return f"{everyone} code {code}, configuration and versions; data {found}"
    index, what, found, wanted = differences[0]
    more = f" (and {len(differences) - 1} more differences)" if len(differences) > 1 else ""
    raise UserError(
        f"Process {index} on {told[index]['host']} differs from most in {what}: it has {found}, "
        f"they have {wanted}{more}; make the hosts the same and start again."
    )


def _differences(processes: list[dict[str, str]]) -> Iterator[tuple[int, str, str, str]]:
    """Yields (process, what, its value, that of the most) for everything that is not the same."""
    for what in {name: None for values in processes for name in values}:
        found = [values.get(what, "none") for values in processes]
        # Of two values that are as frequent the first process's counts.
        most = collections.Counter(found).most_common(1)[0][0]
        yield from ((i, what, value, most) for i, value in enumerate(found) if value != most)


def code_digest() -> str:
    """Says in 16 letters what the package's files hold: Python and gin, also of the tasks."""
    root = Path(simvlm_jax.__file__).parent
    spec = importlib.util.find_spec("simvlm_jax.tasks")  # of a floor above, and elsewhere on disk
    tasks = Path(spec.origin).parent
    whole = hashlib.sha256()
    for folder, pattern in ((root, "*.py"), (tasks, "*.py"), (Path(gin_root()), "*.gin")):
        for path in sorted(folder.rglob(pattern)):
            inside = path.relative_to(folder)
            if folder == root and inside.parts[0] == "tasks":
                continue  # a plain install has them here, too
            whole.update(f"{inside}\0".encode())
            whole.update(path.read_bytes())
    return whole.hexdigest()[:16]


def versions() -> dict[str, str]:
    """Versions of Python and of `PACKAGES`, where they are installed."""
    found = {"Python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
