"""A trained run as files for elsewhere: weights that any library reads, or a program with them.

Dimension letters: B images, H W their height and width, E prompt tokens, T generated tokens.
"""

import contextlib
import dataclasses
import json
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from simvlm_jax.captioner import Captioner
from simvlm_jax.errors import UserError, writing
from simvlm_jax.model import PrefixLMModel
from simvlm_jax.models.layouts import unscan
from simvlm_jax.training.folder import FIXED_FILES, read_config, read_file
from simvlm_jax.training.reading import restore_params

WEIGHTS, CONFIG, VOCABULARY = "model.safetensors", "config.json", FIXED_FILES[1]
PROGRAM = "captioner.stablehlo"
# One program for all three; it was tried on CPUs only.
PLATFORMS = ("cpu", "cuda", "tpu")


def export_weights(
    model_dir: str | Path, output: str | Path, step: int | None = None
) -> dict[Path, int]:
    """Writes parameters, configuration and vocabulary; a classifier's as any other's.

    Parameters are float32 under their paths, one array for each layer whatever the run's layout:
    "encoder/layer_0/mlp/in/kernel". `docs/read_weights.py` computes logits from them.

    Args:
        model_dir: The folder of a run.
        output: The folder to make.
        step: Which checkpoint; None takes the newest.

    Returns:
        The files with their sizes in bytes.

    Raises:
        UserError: If there is no such run or checkpoint, or `output` is there already.
    """
    values = read_config(model_dir)
    vocabulary = read_file(model_dir, VOCABULARY)
    with _new_folder(output) as folder:
        _write_weights(folder, _flat(restore_params(model_dir, step)))
        _write_model(folder, values, vocabulary)
    return _sizes(output)


def export_captioner(
    model_dir: str | Path,
    output: str | Path,
    step: int | None = None,
    batch_size: int | None = None,
    max_length: int | None = None,
) -> dict[Path, int]:
    """Writes a captioner that runs without this package: see `docs/run_captioner.py`.

    The program is what `jax.export` serializes: StableHLO, called with (parameters by name, image
    uint8 [B, H, W, 3], prompt int32 [B, E], 0 is padding) for greedily chosen tokens int32 [B, T],
    0 after the end of sequence (1). Parameters stand beside it, as `export_weights` writes them:
    inside, those of the larger models would not fit (2 GiB).

    Args:
        model_dir: The folder of a run that writes text.
        output: The folder to make.
        step: Which checkpoint; None takes the newest.
        batch_size: B; None leaves it open.
        max_length: T; None takes what `simvlm caption` does.

    Returns:
        The files with their sizes in bytes.

    Raises:
        UserError: As for `export_weights`, or if the run writes no text.
    """
    values = read_config(model_dir)
    if "decoding" not in values:
        raise UserError(
            f"The model in {model_dir} writes no text, so there is no captioner to export: take "
            "its weights with --format=safetensors."
        )
    vocabulary = read_file(model_dir, VOCABULARY)
    with _new_folder(output) as folder:
        captioner = Captioner.load(model_dir, step, beams=1, max_length=max_length)
        params = _flat(captioner.params)
        program = captioner_program(captioner.model, params, captioner.max_length, batch_size)
        (folder / PROGRAM).write_bytes(program.serialize())
        _write_weights(folder, params)
        sizes = {"batch_size": batch_size, "max_length": captioner.max_length}
        _write_model(folder, values | {"captioner": sizes}, vocabulary)
    return _sizes(output)


def captioner_program(
    model: PrefixLMModel,
    params: Mapping[str, np.ndarray],
    max_length: int,
    batch_size: int | None = None,
) -> jax.export.Exported:
    """Greedy captioning as one program, with sizes left open.

    Args:
        model: The model; its decoding settings do not count.
        params: By path, a layer at a time; only shapes count.
        max_length: T.
        batch_size: B; None leaves it open. E is open always.

    Raises:
        UserError: If the model has no room for a prompt of one token and the output.
    """
    config = dataclasses.replace(model.config, scan_layers=False)  # as `params` are
    room = config.text_length - (max_length if config.decoder_only else 0)
    if room < 1 or max_length > config.text_length:
        raise UserError(
            f"The model has {config.text_length} text positions: a prompt and an output of "
            f"{max_length} tokens do not fit, give a smaller --max_length."
        )
    greedy = PrefixLMModel(config)

    def run(params: dict[str, jax.Array], image: jax.Array, prompt: jax.Array) -> jax.Array:
        batch = {
            "image": image,
            "encoder_input_tokens": prompt,
            "decoder_input_tokens": jnp.zeros((image.shape[0], max_length), jnp.int32),
        }
        return greedy.predict_batch(_nested(params), batch)

    (length,) = jax.export.symbolic_shape("prompt_length", constraints=[f"prompt_length <= {room}"])
    (batch,) = jax.export.symbolic_shape("batch", scope=length.scope)
    batch = batch_size or batch
    shapes = {name: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for name, leaf in params.items()}
    image = jax.ShapeDtypeStruct((batch, *config.image_size, 3), jnp.uint8)
    prompt = jax.ShapeDtypeStruct((batch, length), jnp.int32)
    return jax.export.export(jax.jit(run), platforms=PLATFORMS)(shapes, image, prompt)


def _flat(params: Any) -> dict[str, np.ndarray]:
    """Parameters by path, float32, one array for each layer."""
    leaves = flatten_dict(unscan(jax.tree.map(np.asarray, params)), sep="/")
    return {path: np.ascontiguousarray(leaf, np.float32) for path, leaf in leaves.items()}


def _nested(params: Mapping[str, jax.Array]) -> dict[str, Any]:
    return unflatten_dict(params, sep="/")


def _write_weights(folder: Path, params: dict[str, np.ndarray]) -> None:
    import safetensors.numpy

    try:
        safetensors.numpy.save_file(params, folder / WEIGHTS)
    except safetensors.SafetensorError as error:  # it does not raise the system's own
        raise OSError(0, str(error)) from error


def _write_model(folder: Path, values: dict[str, Any], vocabulary: bytes) -> None:
    """Writes what else is needed; the configuration says how the weights are laid out."""
    if isinstance(values.get("network"), dict):
        values = values | {"network": values["network"] | {"scan_layers": False}}
    (folder / CONFIG).write_text(json.dumps(values, indent=2))
    (folder / VOCABULARY).write_bytes(vocabulary)


@contextlib.contextmanager
def _new_folder(output: str | Path) -> Iterator[Path]:
    """A folder to write into, which takes its place at the end; until then there is none.

    Raises:
        UserError: If something is there already, or it cannot be written.
    """
    output = Path(output)
    if output.is_symlink() or (output.exists() and not _is_empty(output)):
        raise UserError(f"{output} is there already: give another --output.")
    with writing(output):
        output.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{output.name}.", dir=output.parent) as beside:
            folder = Path(beside) / "export"  # with the rights of any new folder
            folder.mkdir()
            yield folder
            folder.rename(output)  # of all that may be there, it replaces an empty folder only


def _is_empty(path: Path) -> bool:
    return path.is_dir() and not any(path.iterdir())


def _sizes(output: str | Path) -> dict[Path, int]:
    return {path: path.stat().st_size for path in sorted(Path(output).iterdir())}
