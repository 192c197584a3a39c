"""A trained run applied to whole splits: texts, scores and losses.

Of several processes each runs its rows of every batch, and each gets all results.

Dimension letters: N examples of a split, B batch, T tokens.
"""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from simvlm_jax.data.plain import evaluation_examples, plain_batches
from simvlm_jax.data.vocabulary import EOS_ID, default_vocabulary
from simvlm_jax.kinds import open_text_model
from simvlm_jax.sharing import Replicas, copied_everywhere
from simvlm_jax.training.folder import read_config
from simvlm_jax.training.pretrained import require_same_vocabulary
from simvlm_jax.training.reading import restore_params

Arrays = dict[str, np.ndarray]


class Predictor:
    """A run's model and parameters, compiled once per shape of batch."""

    def __init__(self, model_dir: str | Path, batch_size: int) -> None:
        """Opens a run's folder.

        Args:
          model_dir: holds model_config.json, vocabulary.model and checkpoints.
          batch_size: examples run at once; the devices have to divide it, so it may grow.

        Raises:
          UserError: it is no run's folder, or its vocabulary is not the prepared data's.
        """
        values = read_config(model_dir)
        require_same_vocabulary(model_dir)
        self.model = open_text_model(values, model_dir)
        params = copied_everywhere(restore_params(model_dir))
        self._predict = Replicas(self.model.predict_batch_with_aux, params)
        self._evaluate = Replicas(self.model.eval_fn, params)
        self.batch_size = self._predict.padded(batch_size)

    def split(self, task: str, split: str, lengths: Mapping[str, int]) -> tuple[Arrays, list[dict]]:
        """A whole split as the model's features [N, ...] and each example's texts."""
        size = self.model.config.image_size
        batches = list(plain_batches(task, split, lengths, size, self.batch_size))
        names = batches[0][0]
        arrays = {n: np.concatenate([batch[n][:count] for batch, count in batches]) for n in names}
        return arrays, evaluation_examples(task, split)

    def generate(self, arrays: Arrays) -> tuple[list[str], np.ndarray]:
        """Texts after each example's prefix, and their scores float32 [N]."""
        parts = self._over_batches(self._predict, arrays)
        texts = [decode(row) for tokens, _ in parts for row in tokens]
        count = len(arrays["decoder_target_tokens"])
        return texts[:count], np.concatenate([aux["scores"] for _, aux in parts])[:count]

    def loss(self, arrays: Arrays) -> float:
        """Mean negative log-likelihood per real target token, in nats."""
        parts = self._over_batches(self._evaluate, arrays)
        metrics = [part["loss"] for _, part in parts]
        return float(sum(m.total for m in metrics) / sum(m.count for m in metrics))

    def _over_batches(self, function: Callable, arrays: Arrays) -> list:
        """The function's results on consecutive batches; the last is filled up with zeros."""
        count, size = len(arrays["decoder_target_tokens"]), self.batch_size
        results = []
        for start in range(0, count, size):
            batch = {name: array[start : start + size] for name, array in arrays.items()}
            missing = size - len(batch["decoder_target_tokens"])
            batch = {
                name: np.pad(array, [(0, missing)] + [(0, 0)] * (array.ndim - 1))
                for name, array in batch.items()
            }
            results.append(function(batch))
        return results


def decode(tokens: np.ndarray) -> str:
    """The text of generated tokens int32 [T], up to the end of sequence."""
    ids = [int(token) for token in tokens]
    ids = ids[: ids.index(EOS_ID)] if EOS_ID in ids else ids
    return default_vocabulary().decode([token for token in ids if token])
