"""The ablation's tasks give what a run reads, each objective also inside a training stream."""

import shutil

import numpy as np
import pytest
import simvlm_jax.tasks  # noqa: F401  registers the tasks

from simvlm_jax.data.ablation import write_ablation
from simvlm_jax.data.plain import evaluation_examples
from simvlm_jax.data.preprocessors import OBJECTIVES
from simvlm_jax.data.streams import GroupStream
from simvlm_jax.data.vocabulary import default_vocabulary

LENGTHS = {"image": 1, "example_seed": 2, "inputs": 24, "targets": 24}


@pytest.fixture(scope="module")
def folder(made_data, tmp_path_factory):
    folder = shutil.copytree(made_data, tmp_path_factory.mktemp("ablation") / "data")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SIMVLM_DATA_DIR", str(folder))
        write_ablation(seed=0)
        yield folder


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("quality", ["noisy", "tenth", "clean"])
def test_a_stream_reads_pairs_of_every_quality(folder, quality, objective):
    name = f"ablation_{quality}_{objective}"
    stream = GroupStream({name: 2}, {}, 2, LENGTHS, {}, (8, 8), seed=0)
    batch = next(stream.batches(0))
    assert batch["image"].shape == (2, 2, 8, 8, 3) and stream.ledger.counts.total() == 0
    assert np.all(batch["decoder_loss_weights"].sum(axis=-1) > 0)


def test_a_question_stands_in_the_encoder_and_its_answer_in_the_decoder(folder):
    stream = GroupStream({"ablation_questions": 3}, {}, 1, LENGTHS, {}, (8, 8), seed=0)
    batch = next(stream.batches(0))
    decode = default_vocabulary().decode
    shown = {
        (decode([t for t in q if t]), decode([t for t in a if t > 1]))
        for q, a in zip(
            batch["encoder_input_tokens"][0].tolist(),
            batch["decoder_target_tokens"][0].tolist(),
            strict=True,
        )
    }
    examples = evaluation_examples("ablation_questions", "train")
    assert shown <= {(e["question"], e["answer"]) for e in examples}
    assert {"kind", "codepoints"} <= set(examples[0])
