"""NLVR2 as its official script counts it (lil-lab/nlvr, nlvr2/eval/metrics.py; Suhr et al. 2019).

An identifier is "split-set-pair-sentence", "test1-12-3-0" for instance: the third part is the pair
of images, and what is left without it names the sentence.
"""

from collections.abc import Mapping

from simvlm_jax.errors import UserError

LABELS = ("true", "false")


def sentence_of(identifier: str) -> str:
    """Names the sentence: "dev-850-2-0" gives "dev-850--0", as all pairs of it do.

    Raises:
      UserError: It does not have the four parts.
    """
    parts = identifier.split("-") if isinstance(identifier, str) else []
    if len(parts) != 4:
        raise UserError(
            f"{identifier!r:.80} is no NLVR2 identifier of four parts such as 'dev-850-2-0'; give "
            "the official file's."
        )
    return "-".join((*parts[:2], "", parts[3]))


def score_nlvr2(
    predictions: Mapping[str, str | bool], labels: Mapping[str, str | bool]
) -> dict[str, float]:
    """Accuracy, and the share of sentences that are judged right on all their image pairs.

    Example: right on "dev-1-0-0", wrong on "dev-1-1-0" and right on "dev-2-0-0" gives accuracy 2/3
    and consistency 1/2.

    Args:
      predictions: Identifier to "True" or "False", in any case, or a bool.
      labels: The same of every example of the split.

    Returns:
      `accuracy` and `consistency` in [0, 1].

    Raises:
      UserError: There are no labels, an example has no prediction or a prediction no label, an
        identifier has another form, or a value is neither true nor false.
    """
    if not labels:
        raise UserError("There are 0 labels to score by; give at least one.")
    if missing := [name for name in labels if name not in predictions]:
        raise UserError(
            f"{len(missing)} of {len(labels)} examples have no prediction ({missing[0]!r} is one); "
            "predict every example of the split."
        )
    if extra := [name for name in predictions if name not in labels]:
        raise UserError(
            f"{len(extra)} predictions are of no example of the split ({extra[0]!r} is one); give "
            "the labels of the same split."
        )
    right = {name: _truth(predictions[name]) == _truth(label) for name, label in labels.items()}
    consistent: dict[str, bool] = {}
    for name, is_right in right.items():
        sentence = sentence_of(name)
        consistent[sentence] = consistent.get(sentence, True) and is_right
    return {
        "accuracy": sum(right.values()) / len(right),
        "consistency": sum(consistent.values()) / len(consistent),
    }


def _truth(value: str | bool) -> bool:
    name = str(value).lower()
    if name not in LABELS:
        raise UserError(f"{value!r:.80} is neither True nor False; give one of them.")
    return name == "true"
