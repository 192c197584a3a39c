"""ImageNet, `data_dir/imagenet`: a folder of images for each class.

    train/n01440764/n01440764_10026.JPEG    val/n01440764/ILSVRC2012_val_00000293.JPEG

Class i is the i-th folder of train by name, in both splits. There is no text: the paper (section
4.3) trains a linear classifier on the encoder's mean-pooled features.
"""

from simvlm_jax.data.benchmarks.fields import fields
from simvlm_jax.data.benchmarks.folders import class_rows
from simvlm_jax.data.classification import IMAGE, register_classification
from simvlm_jax.data.sources import OfficialSource, OfficialSplit

FOLDER, SPLITS = "imagenet", ("train", "val")

register_classification(
    "imagenet",
    OfficialSource(
        FOLDER,
        {
            split: OfficialSplit((f"{FOLDER}/{split}", f"{FOLDER}/train"), class_rows, folders=True)
            for split in SPLITS
        },
        fields(f"class_name {IMAGE}", "label"),
        [f"{FOLDER}/{split}" for split in SPLITS],
    ),
    images=[IMAGE],
)
