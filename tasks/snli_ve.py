"""SNLI-VE, `data_dir/snli_ve`: does a photo entail a sentence? The official files, unchanged.

    snli_ve_train.jsonl snli_ve_dev.jsonl snli_ve_test.jsonl
    flickr30k_images/       4705552913.jpg and so on, of Flickr30k

`snli_ve` (paper, section 4.2.1): the image to the encoder, the hypothesis to the decoder; classes 0
entailment, 1 neutral, 2 contradiction. `snli_ve_text` has the caption that the image had in SNLI
in its place: to finetune on text only, and then show images (section 4.3).
"""

from simvlm_jax.data.benchmarks.entailment import entailment_rows
from simvlm_jax.data.benchmarks.fields import fields
from simvlm_jax.data.classification import IMAGE, register_classification
from simvlm_jax.data.sources import OfficialSource, OfficialSplit

FOLDER, IMAGES = "snli_ve", "flickr30k_images"
TEXTS = "pair_id premise hypothesis"


def _splits(images: str | None) -> dict[str, OfficialSplit]:
    return {
        split: OfficialSplit(
            (f"{FOLDER}/snli_ve_{split}.jsonl",), entailment_rows, {"images": images}
        )
        for split in ("train", "dev", "test")
    }


register_classification(
    "snli_ve",
    OfficialSource(
        FOLDER,
        _splits(IMAGES),
        fields(f"{TEXTS} image_id {IMAGE}", "label"),
        [f"{FOLDER}/{IMAGES}"],
    ),
    targets="{hypothesis}",
    images=[IMAGE],
)
register_classification(
    "snli_ve_text",
    OfficialSource(FOLDER, _splits(None), fields(TEXTS, "label")),
    inputs="{premise}",
    targets="{hypothesis}",
)
