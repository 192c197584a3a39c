"""A trained run applied to whole splits: texts, classes, scores and losses.

Of several processes each makes and runs its rows of every batch, and each gets all results.

Dimension letters: N examples of a split, B batch, T tokens, C classes.
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from simvlm_jax.attention_maps import attention_maps, word_maps
from simvlm_jax.data.evaluation_split import IMAGES, EvaluationSplit
from simvlm_jax.data.pieces import words_of
from simvlm_jax.data.vocabulary import EOS_ID, default_vocabulary
from simvlm_jax.kinds import open_model
from simvlm_jax.sharing import Replicas, copied_everywhere
from simvlm_jax.training.folder import read_config
from simvlm_jax.training.pretrained import require_same_vocabulary
from simvlm_jax.training.reading import restore_step

Arrays = dict[str, np.ndarray]
GREY = 127  # the middle of a pixel's range: an image that shows nothing


@dataclasses.dataclass(frozen=True)
class Inputs:
    """A split as it is shown to the model.

    Attributes:
      split: its examples.
      images_of: int64 [N], of which example each one's images are; None: its own.
      images: "shown", "masked" (all grey) or "none" (the batch has no image).
      change: of a batch's arrays, before it is run.
    """

    split: EvaluationSplit
    images_of: np.ndarray | None = None
    images: str = "shown"
    change: Callable[[Arrays], Arrays] = dict

    def batches(self, size: int, rows: np.ndarray) -> Iterator[tuple[Arrays, int]]:
        """Yields (arrays [B, ...], number of real examples) in order."""
        for batch, count in self.split.batches(size, rows, self.images_of):
            if self.images == "masked":
                batch |= {name: np.full_like(batch[name], GREY) for name in IMAGES if name in batch}
            elif self.images == "none":
                batch = {name: array for name, array in batch.items() if name not in IMAGES}
            yield self.change(batch), count


class Predictor:
    """A run's model and parameters, compiled once per shape of batch.

    Attributes:
      model: the run's, either kind.
      step: of the checkpoint.
      batch_size: examples run at once.
    """

    def __init__(self, model_dir: str | Path, batch_size: int, step: int | None = None) -> None:
        """Opens a run's folder.

        Args:
          model_dir: holds model_config.json, vocabulary.model and checkpoints.
          batch_size: examples run at once; the devices have to divide it, so it may grow.
          step: which checkpoint; None takes the newest that is whole.

        Raises:
          UserError: it is no run's folder, or its vocabulary is not the prepared data's.
        """
        values = read_config(model_dir)
        require_same_vocabulary(model_dir)
        self.model = open_model(values)
        self.step, params = restore_step(model_dir, step)
        params = copied_everywhere(params)
        self._predict = Replicas(self.model.predict_batch_with_aux, params)
        self._evaluate = Replicas(self.model.eval_fn, params)
        if hasattr(self.model, "score_batch"):  # a classifier scores no texts
            self._score = Replicas(self.model.score_batch, params)
            self._maps = Replicas(self._attention, params)
        self.batch_size = self._predict.padded(batch_size)

    def open(self, task: str, split: str, lengths: Mapping[str, int]) -> EvaluationSplit:
        """A split, with images of the model's size."""
        return EvaluationSplit(task, split, lengths, self.model.config.image_size)

    def generate(self, inputs: Inputs) -> tuple[list[str], np.ndarray]:
        """Texts after each example's prefix, and their scores float32 [N]."""
        texts, scores = [], []
        for (tokens, aux), count in self._over(self._predict, inputs):
            texts += [decode(row) for row in tokens[:count]]
            scores.append(aux["scores"][:count])
        return texts, np.concatenate(scores)

    def look(self, arrays: Arrays) -> list[list[tuple[str, np.ndarray]]]:
        """Where the decoder looked for each word of some examples that it answers anew.

        Args:
          arrays: their features [n, ...], with images.

        Returns:
          For each, its words with their maps float32 [rows, columns], see `attention_maps`.
        """
        tokens, _ = self._predict(arrays)
        count = len(arrays["image"])
        maps = self._maps(arrays | {"tokens": tokens[:count]})
        words = default_vocabulary().tokenizer
        return [
            word_maps(of_one, words_of(ids.tolist(), words, EOS_ID))
            for ids, of_one in zip(tokens[:count], maps[:count], strict=True)
        ]

    def classify(self, inputs: Inputs) -> np.ndarray:
        """A classifier's logits, float32 [N, C]."""
        made = self._over(self._predict, inputs)
        return np.concatenate([aux["logits"][:count] for (_, aux), count in made])

    def score(self, inputs: Inputs) -> np.ndarray:
        """Log probabilities of the batches' targets, float32 [N], summed over their tokens."""
        return np.concatenate([s[:count] for s, count in self._over(self._score, inputs)])

    def loss(self, inputs: Inputs) -> float:
        """The mean of the model's own loss over the split, in nats a token or an example."""
        parts = [metrics["loss"] for (_, metrics), _ in self._over(self._evaluate, inputs)]
        return float(sum(m.total for m in parts) / sum(m.count for m in parts))

    def _attention(self, params: Any, batch: Arrays) -> Any:
        """`attention_maps` of a batch with its generated tokens."""
        batch = dict(batch)
        tokens = batch.pop("tokens")
        return attention_maps(self.model, params, batch, tokens)

    def _over(self, function: Replicas, inputs: Inputs) -> Iterator[tuple[Any, int]]:
        """The function's results on consecutive batches, with their number of real examples."""
        rows = function.rows(self.batch_size)
        for batch, count in inputs.batches(self.batch_size, rows):
            yield function(batch), count


def decode(tokens: np.ndarray) -> str:
    """The text of generated tokens int32 [T], up to the end of sequence."""
    ids = [int(token) for token in tokens]
    ids = ids[: ids.index(EOS_ID)] if EOS_ID in ids else ids
    return default_vocabulary().decode([token for token in ids if token])
