"""The example to copy works as it stands: records made by hand reach seqio, the stream, a run."""

import importlib
import shutil
from pathlib import Path

import numpy as np
import pytest
import seqio
from simvlm_jax.tasks import openmoji

from simvlm_jax.cli.main import main
from simvlm_jax.data.records import encode_example, write_shards
from simvlm_jax.data.streams import GroupStream
from simvlm_jax.data.vocabulary import default_vocabulary

LENGTHS = {"image": 1, "example_seed": 2, "inputs": 16, "targets": 16}


@pytest.fixture
def forkme(made_data, tmp_path, monkeypatch):
    """A data folder with twelve captioned images in the layout of tasks/forkme.py."""
    shutil.copy(made_data / "vocabulary.model", tmp_path)
    monkeypatch.setenv("SIMVLM_DATA_DIR", str(made_data))
    task = seqio.TaskRegistry.get("openmoji_captions")
    records = [
        encode_example(
            {
                "id": number,
                "image/encoded": example["image"][0],
                "caption": example["caption/en"].decode(),
            }
        )
        for number, example in enumerate(
            task.get_dataset(None, "train", shuffle=False).take(12).as_numpy_iterator()
        )
    ]
    for split in ("train", "validation"):
        write_shards(tmp_path / "forkme", split, records, 1)
    monkeypatch.setenv("SIMVLM_DATA_DIR", str(tmp_path))
    module = importlib.import_module("simvlm_jax.tasks.forkme")
    assert openmoji is not module
    return module


def test_it_is_short():
    assert len((Path(openmoji.__file__).parent / "forkme.py").read_text().splitlines()) <= 30


def test_the_stream_and_seqio_read_it(forkme):
    stream = GroupStream({forkme.NAME: 3}, {}, 4, LENGTHS, {}, (8, 8), seed=0)
    batch = next(stream.batches(0))
    assert batch["image"].shape == (4, 3, 8, 8, 3)
    tokens = np.concatenate(
        [batch["encoder_input_tokens"], batch["decoder_target_tokens"]], axis=-1
    ).reshape(12, -1)
    texts = {default_vocabulary().decode([t for t in row.tolist() if t > 1]) for row in tokens}
    examples = seqio.get_mixture_or_task(forkme.NAME).get_dataset(None, "validation")
    captions = {e["targets_pretokenized"].decode() for e in examples.as_numpy_iterator()}
    assert texts == captions and len(texts) == 12


def test_a_run_reads_it_by_name(forkme, tmp_path, capsys):
    mine = tmp_path / "mine.gin"
    mine.write_text(
        "from __gin__ import dynamic_registration\n"
        "from simvlm_jax.tasks import forkme\n"
        "include './runs/demo.gin'\n"
        f"PAIRS = {{'{forkme.NAME}': 2}}\nDOCUMENTS = {{}}\nBATCH_SIZE = 2\n"
    )
    assert main(["inspect", "batch", f"--gin_file={mine}"]) == 0
    assert "group 0, pair 1" in capsys.readouterr().out
