"""NoCaps by domain: captions of images like COCO's, near to them, and far (Agrawal et al. 2019).

CIDEr's document frequencies are of the whole split, shared by its domains. The server's code is no
public file that we know, but in the three tables of the authors' baseline (val: 648, 2,938 and 914
images) the overall score is the mean of the domains' weighted by their images: 78.1, 57.7 and 31.3
make 55.3. With frequencies of each domain's own that would be chance.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from simvlm_jax.errors import UserError
from simvlm_jax.evaluation.captions import cider_scores, score_captions

DOMAINS = ("in-domain", "near-domain", "out-domain")


def score_nocaps(
    predictions: Mapping[int, str],
    references: Mapping[int, Sequence[str]],
    domains: Mapping[int, str],
) -> dict[str, Any]:
    """Caption metrics of the whole split, and CIDEr of each domain.

    Example: with images 0 to 3, of which 0 and 1 are in-domain, the mean of cider_scores' first
    two numbers is cider_in_domain.

    Args:
      predictions: Image id to caption.
      references: Image id to its captions, ten in the official file.
      domains: Image id to "in-domain", "near-domain" or "out-domain".

    Returns:
      What `captions.score_captions` gives, and `cider_in_domain`, `cider_near_domain` and
      `cider_out_domain` (those of which there are images), in the same unit: papers print 100
      times it.

    Raises:
      UserError: The three have other images, a domain has another name; see also
        `captions.cider_scores`.
    """
    for name, known in (("references", references), ("domains", domains)):
        if odd := sorted(map(str, predictions.keys() ^ known.keys())):
            raise UserError(
                f"{len(odd)} images stand in the predictions or the {name} only ({odd[0]} is one); "
                "predict each image of the split once, and no other."
            )
    if wrong := [name for name in domains.values() if name not in DOMAINS]:
        raise UserError(f"The domain {wrong[0]!r} is none of {', '.join(DOMAINS)}; mend the file.")
    images = list(predictions)
    given, wanted = [predictions[i] for i in images], [references[i] for i in images]
    metrics: dict[str, Any] = dict(score_captions(given, wanted))
    scores, found = cider_scores(given, wanted), np.array([domains[i] for i in images])
    for domain in DOMAINS:
        if (found == domain).any():
            name = f"cider_{domain.replace('-', '_')}"
            metrics[name] = float(scores[found == domain].mean())
    return metrics
