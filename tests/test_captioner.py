import hashlib
import json
import shutil

import jax
import numpy as np
import pytest
import sentencepiece

from simvlm_jax.captioner import Captioner
from simvlm_jax.errors import UserError
from simvlm_jax.model import PrefixLMModel
from simvlm_jax.models.config import SimVLMConfig
from simvlm_jax.testing import tiny_classifier
from trained_folder import CONFIG, PROMPT, make_model_dir, parameters

LENGTH = 6
PROMPT_LENGTH = CONFIG.text_length  # room for every prompt


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory):
    # A run that samples: a caption is the likeliest text all the same.
    return make_model_dir(tmp_path_factory.mktemp("run"), temperature=1.0)


@pytest.fixture(scope="module")
def captioner(model_dir):
    return Captioner.load(model_dir, max_length=LENGTH)


def pictures(count, seed=0):
    random = np.random.default_rng(seed)
    colours = random.uniform(-1, 1, (count, 1, 1, 3))
    images = colours + random.normal(0, 0.3, (count, *CONFIG.image_size, 3))
    return images.clip(-1, 1).astype(np.float32)


def greedy_by_hand(model_dir, image, prompt, length=LENGTH):
    """Runs the whole network again for each token, with neither cache nor batch."""
    vocabulary = sentencepiece.SentencePieceProcessor(str(model_dir / "vocabulary.model"))
    inputs = np.zeros((1, PROMPT_LENGTH), int)
    inputs[0, : len(vocabulary.encode(prompt))] = vocabulary.encode(prompt)
    ids, score = [], 0.0
    while len(ids) < length and 1 not in ids:
        before = np.zeros((1, LENGTH), int)
        before[0, 1 : len(ids) + 1] = ids
        logits = whole_network(image[None], inputs, before)[0, len(ids)]
        log_probabilities = np.array(jax.nn.log_softmax(logits))
        log_probabilities[0] = -np.inf  # padding is never produced
        ids.append(int(log_probabilities.argmax()))
        score += log_probabilities[ids[-1]]
    words = [i for i in ids if i != 1 and i < vocabulary.get_piece_size()]
    return vocabulary.decode(words), score


@jax.jit
def whole_network(image, inputs, before):
    return PrefixLMModel(CONFIG).network.apply({"params": parameters()}, image, inputs, before)


def test_captions_and_scores_are_those_of_the_whole_network(captioner, model_dir):
    images = pictures(6)
    expected = [greedy_by_hand(model_dir, image, PROMPT) for image in images]
    found = captioner.caption(images, PROMPT)
    assert [text for text, _ in found] == [text for text, _ in expected]
    assert len({text for text, _ in found}) > 2  # the images matter
    np.testing.assert_allclose([s for _, s in found], [s for _, s in expected], rtol=1e-4)


def test_a_smaller_batch_is_filled_up_and_compiles_nothing(captioner):
    images = pictures(6)
    whole = captioner.caption(images, PROMPT)
    compiled = captioner._predict.compiled()
    last = captioner.caption(images[1:3], PROMPT)
    assert captioner._predict.compiled() == compiled
    assert last == [(text, pytest.approx(score, rel=1e-5)) for text, score in whole[1:3]]


def test_there_may_be_no_prompt(captioner, model_dir):
    image = pictures(1)
    expected = greedy_by_hand(model_dir, image[0], "")
    found = captioner.caption(image, "")[0]
    assert found == (expected[0], pytest.approx(expected[1], rel=1e-4))
    assert found[1] != pytest.approx(captioner.caption(image, captioner.prompt)[0][1], rel=1e-3)


def test_beams_and_length_reach_the_search(model_dir):
    searched = Captioner.load(model_dir, beams=3, max_length=1).caption(pictures(6), PROMPT)
    for image, (_, score) in zip(pictures(6), searched, strict=True):
        expected = greedy_by_hand(model_dir, image, PROMPT, length=1)[1]
        assert score == pytest.approx(expected, rel=1e-4)  # one token: its penalty is 1


def test_text_ends_at_eos_and_holds_no_sentinel(captioner):
    vocabulary = captioner._vocabulary
    red, pieces = vocabulary.encode("red"), vocabulary.get_piece_size()
    assert captioner._text([*red, pieces, 0, 1, *red]) == "red"
    assert captioner._text([1]) == ""
    assert captioner._text([*red, *red]) == vocabulary.decode([*red, *red])  # no EOS at all


def test_too_long_a_prompt_is_refused(captioner):
    with pytest.raises(UserError, match="16 text positions: a prompt of"):
        captioner.caption(pictures(1), "red circle " * 20)


def test_a_decoder_only_model_counts_prompt_and_output_together(tmp_path):
    config = SimVLMConfig.from_json(CONFIG.to_json() | {"decoder_only": True, "encoder_layers": 0})
    captioner = Captioner.load(make_model_dir(tmp_path, config))
    with pytest.raises(UserError, match="an output of 16 do not fit"):
        captioner.caption(pictures(1), "red")


def test_what_is_missing_is_said(model_dir, tmp_path):
    with pytest.raises(UserError, match="There is no folder .*nowhere"):
        Captioner.load(tmp_path / "nowhere")
    with pytest.raises(UserError, match="holds no model_config.json"):
        Captioner.load(tmp_path)
    for name in ("model_config.json", "vocabulary.model"):
        (tmp_path / name).write_bytes((model_dir / name).read_bytes())
    with pytest.raises(UserError, match="no checkpoint"):
        Captioner.load(tmp_path)
    with pytest.raises(UserError, match="no checkpoint of step 3"):
        Captioner.load(model_dir, step=3)


def test_files_that_do_not_belong_together_are_refused(model_dir, tmp_path):
    make_model_dir(tmp_path)
    path = tmp_path / "model_config.json"
    good = json.loads(path.read_text())
    path.write_text(json.dumps(good | {"network": good["network"] | {"mlp_width": 25}}))
    with pytest.raises(UserError, match="another network"):
        Captioner.load(tmp_path)
    path.write_text(json.dumps(good | {"network": good["network"] | {"vocabulary_size": 20}}))
    with pytest.raises(UserError, match="has 32 pieces, but .* at most 20"):
        Captioner.load(tmp_path)


def test_another_vocabulary_of_the_same_size_is_refused(model_dir, tmp_path):
    folder = shutil.copytree(model_dir, tmp_path / "run")
    config = json.loads((folder / "model_config.json").read_text())
    config["vocabulary_sha256"] = hashlib.sha256(b"another").hexdigest()
    (folder / "model_config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match="is not the vocabulary that the model was trained with"):
        Captioner.load(folder)


def test_a_classifier_s_folder_writes_no_captions(tmp_path):
    make_model_dir(tmp_path, model=tiny_classifier(CONFIG, classes=3))
    with pytest.raises(UserError, match="is a classifier of 3 classes and writes no text: give"):
        Captioner.load(tmp_path)
