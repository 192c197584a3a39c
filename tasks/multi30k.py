"""Multi30k, `data_dir/multi30k`: captions of photos in English, German and French.

The official repository (multi30k/dataset) as it is cloned, and the images beside it:

    data/task1/raw/train.en.gz .de.gz .fr.gz      sentences, one a line; unpacked ones do, too
    data/task1/image_splits/train.txt             the image of each line
    flickr30k_images/ test_2017_flickr/           photos of Flickr30k; those of test_2017_flickr
    train2014/ val2014/                           those of COCO that test_2017_mscoco shows

Splits: train, val, test_2016_flickr, test_2017_flickr, test_2017_mscoco. `multi30k_en_de` has image
and English in the encoder and German from the decoder (paper, section 4.2.1); `_text` leaves the
image out; `multi30k_image_de` leaves the English out: the image in the place of the sentence
(zero-shot, section 4.3). The same to French.
"""

import functools

import seqio

from simvlm_jax.data.benchmarks.fields import fields
from simvlm_jax.data.benchmarks.translation import translation_rows
from simvlm_jax.data.classification import IMAGE
from simvlm_jax.data.features import task_features
from simvlm_jax.data.preprocessors import from_record, source_to_target
from simvlm_jax.data.sources import OfficialSource, OfficialSplit
from simvlm_jax.data.vocabulary import default_vocabulary

FOLDER, TASK1 = "multi30k", "multi30k/data/task1"
SPLITS = ("train", "val", "test_2016_flickr", "test_2017_flickr", "test_2017_mscoco")
IMAGES = {split: "flickr30k_images" for split in SPLITS} | {"test_2017_flickr": "test_2017_flickr"}
PLACES = ("flickr30k_images", "test_2017_flickr", "train2014", "val2014")


def register(name: str, language: str, image: str | None, inputs: str) -> None:
    """Registers a task to a language, from an image (or None) and a text for the encoder."""
    splits = {
        split: OfficialSplit(
            (
                f"{TASK1}/image_splits/{split}.txt",
                f"{TASK1}/raw/{split}.en",
                f"{TASK1}/raw/{split}.{language}",
            ),
            translation_rows,
            {"folder": IMAGES[split], "languages": ("en", language)},
        )
        for split in SPLITS
    }
    features = fields(f"image_id en {language} {image or ''}")
    to_text = functools.partial(from_record, targets=f"{{{language}}}", inputs=inputs, image=image)
    seqio.TaskRegistry.add(
        name,
        source=OfficialSource(FOLDER, splits, features, [f"{FOLDER}/{place}" for place in PLACES]),
        preprocessors=[to_text, source_to_target],
        output_features=task_features(default_vocabulary(), image=image is not None),
    )


for _language in ("de", "fr"):
    register(f"multi30k_en_{_language}", _language, IMAGE, "{en}")
    register(f"multi30k_en_{_language}_text", _language, None, "{en}")
    register(f"multi30k_image_{_language}", _language, IMAGE, "")
