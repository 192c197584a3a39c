"""Classes against labels: accuracy, per class, among the first k, Matthews' correlation, F1.

Classes are whatever can be compared: ids, or texts such as "entailment" (SNLI-VE, SNLI, MNLI).
"""

from collections.abc import Hashable, Sequence

import numpy as np

from simvlm_jax.errors import UserError


def require_paired(predictions: Sequence, labels: Sequence) -> None:
    """Refuses what cannot be scored.

    Raises:
      UserError: There are no predictions, more or fewer than labels, or names on one side only.
    """
    if not len(predictions):
        raise UserError("There are 0 predictions to score; give at least one.")
    if len(predictions) != len(labels):
        raise UserError(
            f"There are {len(predictions)} predictions for {len(labels)} labels; give one each."
        )
    texts = [isinstance(values[0], str) for values in (predictions, labels)]
    if texts[0] != texts[1]:
        raise UserError(
            f"Predictions such as {predictions[0]!r:.40} cannot equal labels such as "
            f"{labels[0]!r:.40}; give ids or names on both sides."
        )


def accuracy(predictions: Sequence[Hashable], labels: Sequence[Hashable]) -> float:
    """Share of equal ones. Example: ["yes", "no"] for ["yes", "yes"] gives 0.5.

    Raises:
      UserError: See `require_paired`.
    """
    require_paired(predictions, labels)
    pairs = zip(_plain(predictions), _plain(labels), strict=True)
    return float(np.mean([mine == theirs for mine, theirs in pairs]))


def score_classes(
    predictions: Sequence[Hashable], labels: Sequence[Hashable]
) -> dict[str, float | dict[str, float]]:
    """Accuracy over all and over the examples of each label: SNLI-VE, ImageNet, own classes.

    Example: [0, 1, 1, 1] for [0, 0, 1, 1] gives accuracy 0.75, accuracy_by_class
    {"0": 0.5, "1": 1.0} and most_frequent_share 0.75.

    Args:
      predictions: N classes.
      labels: N classes.

    Returns:
      Numbers in [0, 1]; `most_frequent_share` is that of the commonest prediction: a model that
      always says the same has 1.

    Raises:
      UserError: See `require_paired`.
    """
    given, wanted = _plain(predictions), _plain(labels)
    by_class: dict[str, list[bool]] = {}
    overall = accuracy(given, wanted)
    counts: dict[Hashable, int] = {}
    for mine, theirs in zip(given, wanted, strict=True):
        by_class.setdefault(str(theirs), []).append(mine == theirs)
        counts[mine] = counts.get(mine, 0) + 1
    return {
        "accuracy": overall,
        "accuracy_by_class": {k: float(np.mean(v)) for k, v in sorted(by_class.items())},
        "most_frequent_share": max(counts.values()) / len(given),
    }


def top_k_accuracy(logits: np.ndarray, labels: Sequence[int], k: int) -> float:
    """Share of examples whose label is among the k largest logits.

    Of equal logits at the edge the lower class id is taken first. Example: logits
    [[0.1, 0.7, 0.2]] and label [2] give 0 for k = 1 and 1 for k = 2.

    Args:
      logits: float [N, C].
      labels: N class ids.
      k: At least 1; with k >= C everything is right.

    Raises:
      UserError: See `require_paired`; the logits are no finite matrix, a label is no class id or
        k is below 1.
    """
    logits, ids = np.asarray(logits), np.asarray(labels)
    if logits.ndim != 2 or np.isnan(logits).any():
        raise UserError(
            f"Logits have the shape {logits.shape} and {np.isnan(logits).sum()} of them are no "
            "numbers; give N rows of C numbers."
        )
    require_paired(logits, ids)
    wrong = ids[(ids < 0) | (ids >= logits.shape[1])]
    if k < 1 or wrong.size or ids.dtype.kind not in "iu":
        raise UserError(
            f"Labels must be ids from 0 to {logits.shape[1] - 1} and k at least 1, not k={k} and "
            f"{wrong.tolist()[:3] or ids.dtype}; check the class file."
        )
    best = np.argsort(-logits, axis=1, kind="stable")[:, :k]
    return float(np.mean((best == ids[:, None]).any(axis=1)))


def score_logits(logits: np.ndarray, labels: Sequence[int]) -> dict[str, float]:
    """Accuracy among the first one and the first five classes (ImageNet).

    Returns:
      `accuracy` and `accuracy_top5` in [0, 1].

    Raises:
      UserError: See `top_k_accuracy`.
    """
    return {
        "accuracy": top_k_accuracy(logits, labels, 1),
        "accuracy_top5": top_k_accuracy(logits, labels, 5),
    }


def matthews(predictions: Sequence[int], labels: Sequence[int]) -> float:
    """Matthews' correlation of two classes (CoLA): Pearson's, of zeros and ones.

    Example: [1, 1, 0, 0] for [1, 0, 0, 0] gives 1 / sqrt(3). It is 0 where all predictions or all
    labels are the same.

    Raises:
      UserError: See `require_paired`; or a class is neither 0 nor 1.
    """
    given, wanted = _binary(predictions, labels)
    if given.min() == given.max() or wanted.min() == wanted.max():
        return 0.0
    return float(np.clip(np.corrcoef(given, wanted)[0, 1], -1, 1))


def f1(predictions: Sequence[int], labels: Sequence[int]) -> float:
    """F1 of class 1 (MRPC, QQP): 2 * hits / (ones predicted + ones wanted).

    Example: [1, 1, 0] for [1, 0, 0] gives 2/3. It is 0 where nothing is 1.

    Raises:
      UserError: See `require_paired`; or a class is neither 0 nor 1.
    """
    given, wanted = _binary(predictions, labels)
    ones = int(given.sum() + wanted.sum())
    return 2 * int((given & wanted).sum()) / ones if ones else 0.0


def _plain(values: Sequence[Hashable]) -> list[Hashable]:
    return np.asarray(values).tolist() if isinstance(values, np.ndarray) else list(values)


def _binary(predictions: Sequence[int], labels: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    require_paired(predictions, labels)
    for value in {*_plain(predictions), *_plain(labels)}:
        if value not in (0, 1):
            raise UserError(f"This metric knows the classes 0 and 1, not {value!r}; check them.")
    return np.asarray(predictions, np.int64), np.asarray(labels, np.int64)
