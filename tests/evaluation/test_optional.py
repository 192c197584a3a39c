import sys

import pytest

from simvlm_jax.errors import UserError
from simvlm_jax.evaluation import captions, translation
from simvlm_jax.evaluation.optional import require


def test_an_installed_module_is_returned():
    assert require("json.decoder", "json") is sys.modules["json.decoder"]


@pytest.mark.parametrize(
    ("package", "module", "score"),
    [
        ("pycocoevalcap", "pycocoevalcap.cider.cider", captions.score_captions),
        ("sacrebleu", "sacrebleu.metrics", translation.score_translations),
    ],
)
def test_an_absent_scorer_names_the_install_that_mends_it(package, module, score, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(UserError, match=rf"{package}.*pip install 'simvlm_jax\[eval\]'"):
        score(["red heart"], ["red heart"])
