"""A run's folder with a tiny network of random parameters, made in a second."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import optax
import sentencepiece

from simvlm_jax.testing import random_parameters, tiny_config, tiny_model
from simvlm_jax.training.checkpoints import Checkpoints
from simvlm_jax.training.state import first_state

PIECES = 32
SMALL = dict(conv_layers=(1,), encoder_layers=1, decoder_layers=1)  # compiles in a moment
CONFIG = tiny_config(vocabulary_size=PIECES + 4, **SMALL)  # four sentinels
PROMPT = "a picture of"
STEP = 7
TEXTS = ["a picture of a red circle", "two blue squares left and right", "the black cross above"]


def parameters(config=CONFIG, model=None):
    """Random ones whose captions depend on the image: else each token only repeats itself."""
    values = random_parameters(config, seed=28, model=model)
    values = values | {"token_embedding": 0.2 * values["token_embedding"]}
    return jax.tree.map(jnp.asarray, values)


def make_model_dir(folder, config=CONFIG, model=None, **options):
    folder = Path(folder)
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXTS),
        model_prefix=str(folder / "vocabulary"),
        vocab_size=PIECES,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        minloglevel=2,
    )
    model = model or tiny_model(config, prompt=PROMPT, **options)
    (folder / "model_config.json").write_text(json.dumps(model.to_json()))
    state = first_state(parameters(config, model), optax.sgd(0.1))
    with Checkpoints(folder) as checkpoints:
        checkpoints.save(state.replace(step=jnp.int32(STEP)))
    return folder
