"""What a result was made with: enough to make it again, and to see why another one differs."""

import contextlib
import hashlib
import json
import subprocess
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import jax

import simvlm_jax
from simvlm_jax.training import fingerprint, t5x_format
from simvlm_jax.training.folder import read_config
from simvlm_jax.training.reading import checkpoints_folder, read_manifest, saved_steps

GIT_SECONDS = 10
SCORERS = ("pycocoevalcap", "sacrebleu", "scikit-learn")


def made_with(configuration: str, runs: Mapping[str, tuple[Path, int]]) -> dict[str, Any]:
    """Describes how an evaluation was made, JSON types only.

    Args:
        configuration: The resolved gin text of the evaluation.
        runs: By section, the folder of the run that answered and its checkpoint's step.

    Returns:
        "commit" of the code ("unknown" outside of a git checkout; "+ changes" where files differ
        from it), "code" (a digest of the package's files), "configuration", "versions", "devices",
        and by section "checkpoints": folder, step, a digest of all its arrays' digests (None where
        it has none) and the model with its decoding settings.
    """
    return {
        "commit": commit(Path(simvlm_jax.__file__).parent),
        "code": fingerprint.code_digest(),
        "configuration": configuration,
        "versions": fingerprint.versions() | scorer_versions(),
        "devices": [device.device_kind for device in jax.devices()],
        "checkpoints": {
            section: {
                "folder": str(folder),
                "step": step,
                "digest": checkpoint_digest(folder, step),
                "model": read_config(folder),
            }
            for section, (folder, step) in runs.items()
        },
    }


def scorer_versions() -> dict[str, str]:
    """Versions of the packages that compute metrics, where they are installed."""
    found = {}
    for name in SCORERS:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def checkpoint_digest(model_dir: Path, step: int) -> str | None:
    """A digest of a checkpoint's manifest, in 16 letters; None for T5X's without one."""
    folder = checkpoints_folder(model_dir)
    if step in saved_steps(folder):
        manifest: Mapping[str, Any] = read_manifest(folder / str(step))
    else:
        whole = t5x_format.folder(model_dir, step).parent
        if not t5x_format.is_described(whole):
            return None
        manifest = read_manifest(whole, t5x_format.ITEMS)
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()[:16]


def commit(folder: Path) -> str:
    """The commit of a git checkout that holds a folder; "unknown" where there is none."""
    revision = _git(folder, "rev-parse", "HEAD")
    if revision is None or _git(folder, "ls-files", "--error-unmatch", "__init__.py") is None:
        return "unknown"  # an installed package in an environment inside somebody's checkout
    return revision + (" + changes" if _git(folder, "status", "--porcelain") else "")


def _git(folder: Path, *arguments: str) -> str | None:
    command = ["git", "-C", str(folder), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=GIT_SECONDS)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
