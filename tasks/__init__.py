"""seqio tasks, one file per data set; importing this registers them all and reads no file."""

from simvlm_jax.tasks import (
    ablation,
    coco_captions,
    documents,
    glue,
    imagenet,
    multi30k,
    nli,
    nlvr2,
    nocaps,
    openmoji,
    own,
    snli_ve,
    vqa_v2,
)

__all__ = [
    "ablation",
    "coco_captions",
    "documents",
    "glue",
    "imagenet",
    "multi30k",
    "nli",
    "nlvr2",
    "nocaps",
    "openmoji",
    "own",
    "snli_ve",
    "vqa_v2",
]
