"""Opens a run's model of whichever kind: a PrefixLM, which writes text, or a classifier."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from simvlm_jax import classifier
from simvlm_jax.classifier import ClassifierModel
from simvlm_jax.errors import UserError
from simvlm_jax.model import PrefixLMModel


def open_model(
    values: Mapping[str, Any], **decoding_options: Any
) -> PrefixLMModel | ClassifierModel:
    """The model that a run's model_config.json describes.

    Args:
      values: its content, as `training.folder.read_config` gives it. One that says no kind is a
        PrefixLM's.
      **decoding_options: override a PrefixLM's; a classifier has none.

    Raises:
      UserError: the values describe no model.
    """
    if "kind" not in values:
        return PrefixLMModel.from_json(values, **decoding_options)
    if values["kind"] != classifier.KIND:
        raise UserError(f"The model configuration has an unknown kind: {values['kind']!r}.")
    return ClassifierModel.from_json(values)


def open_text_model(
    values: Mapping[str, Any], model_dir: str | Path, **decoding_options: Any
) -> PrefixLMModel:
    """`open_model` for whoever needs texts.

    Args:
      values: as for `open_model`.
      model_dir: the run's folder, for the sentence.
      **decoding_options: override its decoding.

    Raises:
      UserError: the values describe no model, or a classifier, which writes none.
    """
    model = open_model(values, **decoding_options)
    if isinstance(model, ClassifierModel):
        raise UserError(
            f"The model in {model_dir} is a classifier of {model.classes} classes and writes no "
            "text: give the folder of a run that does."
        )
    return model
