"""Starting from what another run has learned (paper section 4.1: finetuning)."""

from pathlib import Path
from typing import Any

from simvlm_jax.errors import UserError
from simvlm_jax.model import PrefixLMModel
from simvlm_jax.models.layouts import scan, unscan
from simvlm_jax.models.resize import resize_image_parameters
from simvlm_jax.training.folder import read_config, read_file
from simvlm_jax.training.reading import restore_params


def pretrained_params(
    model_dir: str | Path, model: PrefixLMModel, step: int | None = None, ema: bool = False
) -> Any:
    """Reads a run's parameters and fits them to a model.

    The model may have another image size, for which the position parameters are interpolated,
    and another layout of its layers (`scan_layers`); the rest must be as in that run.

    Args:
        model_dir: The folder of the run to start from.
        model: The model that will be trained.
        step: Which checkpoint; None takes the newest that is whole.
        ema: Take the moving average of the parameters instead.

    Returns:
        A nested dictionary of arrays, for `loop.train`'s `initial_params`.

    Raises:
        UserError: If the folder holds no run, no such checkpoint or no average, or if its
            vocabulary is not the prepared data's.
    """
    values = read_config(model_dir)
    require_same_vocabulary(model_dir)
    params = restore_params(model_dir, step, ema)
    old = PrefixLMModel.from_json(values).config
    params = resize_image_parameters(params, old, model.config)
    return scan(params) if model.config.scan_layers else unscan(params)


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
