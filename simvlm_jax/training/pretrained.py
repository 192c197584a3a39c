"""Starting from what another run has learned (paper section 4.1: finetuning)."""

import dataclasses
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
from flax.traverse_util import flatten_dict, unflatten_dict

from simvlm_jax import hosts
from simvlm_jax.errors import UserError
from simvlm_jax.kinds import open_model
from simvlm_jax.models.classifier import HEAD
from simvlm_jax.models.config import SimVLMConfig
from simvlm_jax.models.layouts import scan, unscan
from simvlm_jax.models.resize import resize_image_parameters
from simvlm_jax.protocol import NetworkModel
from simvlm_jax.training.folder import read_config, read_file
from simvlm_jax.training.reading import restore_step

NAMES_TOLD = 4
Arrays = dict[str, Any]  # by path, such as "encoder/scanned/mlp/in/kernel"


def pretrained_params(
    model_dir: str | Path,
    model: NetworkModel,
    step: int | None = None,
    ema: bool = False,
    may_differ: Sequence[str] = (f"{HEAD}/.*",),
    seed: int = 0,
) -> Any:
    """Reads a run's parameters, fits them to a model, and tells what became of which.

    The model may have another image size, for which the position parameters are interpolated,
    another layout of its layers (`scan_layers`), and a classifier where the run has another one or
    none; the rest must be as in that run.

    Args:
        model_dir: The folder of the run to start from.
        model: The model that will be trained.
        step: Which checkpoint; None takes the newest that is whole.
        ema: Take the moving average of the parameters instead.
        may_differ: Regular expressions over paths of parameters that start anew where the run has
            none or others, and of those that are ignored where the model has none.
        seed: Of the parameters that start anew.

    Returns:
        A nested dictionary of arrays, for `loop.train`'s `initial_params`.

    Raises:
        UserError: If the folder holds no run, no such checkpoint or no average, if its vocabulary
            is not the prepared data's, or if its parameters are those of another model.
    """
    values = read_config(model_dir)
    require_same_vocabulary(model_dir)
    old, free = open_model(values).config, [_compiled(pattern) for pattern in may_differ]
    step, params = restore_step(model_dir, step, ema)
    params = scan(params) if model.config.scan_layers else unscan(params)
    before = flatten_dict(params, sep="/")
    found = flatten_dict(resize_image_parameters(params, old, model.config), sep="/")
    fresh = lambda: model.get_initial_variables(jax.random.key(seed), {})["params"]  # noqa: E731
    wanted = flatten_dict(jax.eval_shape(fresh), sep="/")
    loaded = {path: found[path] for path in wanted if _fits(found.get(path), wanted[path])}
    _require_rest(model_dir, found, wanted, loaded, free)
    if hosts.is_first():
        resized = [path for path in loaded if loaded[path] is not before[path]]
        lines = _report(found, wanted, loaded, resized, old, model.config)
        print("\n  ".join([f"{model_dir}, step {step}: {lines[0]}", *lines[1:]]), file=sys.stderr)
    return unflatten_dict(loaded | _made(fresh, set(wanted) - set(loaded)), sep="/")


def _compiled(pattern: str) -> re.Pattern:
    try:
        return re.compile(pattern)
    except re.error as error:
        raise UserError(f"may_differ={pattern!r} is no regular expression: {error}.") from None


def _fits(array: Any, wanted: jax.ShapeDtypeStruct) -> bool:
    return array is not None and (array.shape, array.dtype) == (wanted.shape, wanted.dtype)


def _made(fresh: Callable[[], Any], paths: set[str]) -> Arrays:
    """Makes the fresh parameters of these paths, and no others."""
    if not paths:
        return {}

    def some() -> Arrays:
        flat = flatten_dict(fresh(), sep="/")
        return {path: flat[path] for path in paths}

    return jax.jit(some)()


def _require_rest(
    model_dir: str | Path,
    found: Mapping[str, Any],
    wanted: Mapping[str, Any],
    loaded: Mapping[str, Any],
    may_differ: Sequence[re.Pattern],
) -> None:
    """Refuses a run whose parameters differ where they may not."""
    odd = [
        path
        for path in [*wanted, *(path for path in found if path not in wanted)]
        if path not in loaded and not any(pattern.fullmatch(path) for pattern in may_differ)
    ]
    if not odd:
        return
    first, more = odd[0], f" (and {len(odd) - 1} more do not fit)" if len(odd) > 1 else ""
    if first not in found:
        what = f"has no {first}, which the model has"
    elif first not in wanted:
        what = f"has {first}, which the model does not have"
    else:
        what = f"has {first} of shape {found[first].shape}, and the model {wanted[first].shape}"
    raise UserError(
        f"The run in {model_dir} is of another network: it {what}{more}; take the model file it "
        "was trained with."
    )


def _report(
    found: Mapping[str, Any],
    wanted: Mapping[str, Any],
    loaded: Mapping[str, Any],
    resized: Sequence[str],
    old: SimVLMConfig,
    new: SimVLMConfig,
) -> list[str]:
    """What was loaded, resized, initialised anew, ignored, and which settings are others."""
    count = lambda of, paths: sum(of[path].size for path in paths)  # noqa: E731
    lines = [
        f"loaded {len(loaded)} of {len(wanted)} arrays, {count(wanted, loaded):,} of "
        f"{count(wanted, wanted):,} parameters"
    ]
    if resized:
        lines.append(f"interpolated from {old.grid} to {new.grid} patches: {_names(resized)}")
    if anew := [path for path in wanted if path not in loaded]:
        lines.append(f"initialised anew: {_names(anew)} ({count(wanted, anew):,} parameters)")
    if ignored := [path for path in found if path not in loaded]:
        lines.append(f"ignored: {_names(ignored)} ({count(found, ignored):,} parameters)")
    settings = ((f.name, getattr(old, f.name), getattr(new, f.name)) for f in _FIELDS)
    if others := [f"{name} {new} (was {old})" for name, old, new in settings if old != new]:
        lines.append(f"settings that changed: {', '.join(others)}")
    return lines


_FIELDS = dataclasses.fields(SimVLMConfig)


def _names(paths: Sequence[str]) -> str:
    """Paths in a few words: those of all layers as one."""
    names = list(dict.fromkeys(re.sub(r"layer_\d+", "layer_*", path) for path in paths))
    more = len(names) - NAMES_TOLD
    return ", ".join(names[:NAMES_TOLD]) + (f" and {more} more" if more > 0 else "")


def require_same_vocabulary(model_dir: str | Path) -> None:
    """Checks that a run was trained on the vocabulary of the prepared data.

    Raises:
        UserError: If it was not, or if either is missing.
    """
    from simvlm_jax.data.vocabulary import default_vocabulary  # brings TensorFlow

    if read_file(model_dir, "vocabulary.model") != default_vocabulary().sp_model:
        raise UserError(
            f"The vocabulary of the model in {model_dir} is not the one of the prepared data; "
            "give the data folder the model was trained on with --data_dir."
        )
