import sys
import types

import pytest

from simvlm_jax import configuration
from simvlm_jax.errors import UserError
from simvlm_jax.models.config import SimVLMConfig


class Engine:
    def __init__(self, size, name="plain"):
        if size < 0:
            raise UserError(f"size={size} is negative.")
        self.size, self.name = size, name


def start(engine, times=1, extra=None):
    return engine.size * times, extra


@pytest.fixture(autouse=True)
def toy_module(monkeypatch):
    module = types.ModuleType("toy_parts")
    for thing in (Engine, start):
        thing.__module__ = "toy_parts"
        setattr(module, thing.__name__, thing)
    monkeypatch.setitem(sys.modules, "toy_parts", module)


@pytest.fixture
def gin_file(tmp_path):
    def write(text):
        path = tmp_path / "run.gin"
        path.write_text(f"from __gin__ import dynamic_registration\nimport toy_parts\n{text}")
        return [str(path)]

    return write


COMPLETE = """
SIZE = 3
toy_parts.start.engine = @toy_parts.Engine()
toy_parts.Engine.size = %SIZE
"""


def test_a_bound_reference_is_built(gin_file):
    configuration.load(gin_file(COMPLETE), ["SIZE = 4"])
    assert configuration.value("toy_parts.start.engine").size == 4
    assert configuration.call(start, times=2, extra="here") == (8, "here")


def test_the_resolved_text_configures_the_same_run(gin_file, tmp_path):
    configuration.load(gin_file(COMPLETE), ["SIZE = 5"])
    text = configuration.resolved()
    again = tmp_path / "again.gin"
    again.write_text(text)
    configuration.load([str(again)])
    assert configuration.resolved() == text
    assert configuration.call(start) == (5, None)


def test_loading_forgets_what_was_loaded_before(gin_file):
    configuration.load(gin_file(COMPLETE + "toy_parts.start.times = 7"))
    configuration.load(gin_file(COMPLETE))
    assert configuration.call(start) == (3, None)


@pytest.mark.parametrize(
    ("bindings", "word"),
    [
        (["SIZ = 4"], "SIZ"),
        (["other/toy_parts.Engine.size = 4"], "other/toy_parts.Engine"),
        (["LOST = @toy_parts.Engine()"], "LOST"),
    ],
)
def test_a_binding_that_nothing_reads_is_named(gin_file, bindings, word):
    configuration.load(gin_file(COMPLETE), bindings)
    with pytest.raises(UserError, match=f"sets {word}, which nothing reads"):
        configuration.check("toy_parts.start")


def test_a_scope_that_something_names_is_read(gin_file):
    text = COMPLETE.replace("@toy_parts.Engine()", "@other/toy_parts.Engine()")
    configuration.load(gin_file(text), ["other/toy_parts.Engine.size = 4"])
    configuration.check("toy_parts.start")
    assert configuration.call(start) == (4, None)


def test_what_is_missing_may_stand_where_the_run_is_not_asked_for(gin_file):
    configuration.load(gin_file(COMPLETE), ["SIZE = %gin.REQUIRED"])
    configuration.check("toy_parts.start", complete=False)
    with pytest.raises(UserError, match="needs"):
        configuration.check("toy_parts.start")


def test_names_inside_strings_and_comments_are_no_references(gin_file):
    text = COMPLETE + "HIDDEN = 1\ntoy_parts.Engine.name = '%HIDDEN'\n"
    configuration.load(gin_file(text))
    with pytest.raises(UserError, match="HIDDEN"):
        configuration.check("toy_parts.start")


@pytest.mark.parametrize(
    ("bindings", "words"),
    [
        (["toy_parts.Engine.colour = 1"], "colour"),
        (["toy_parts.Motor.size = 1"], "toy_parts.Motor"),
        (["SIZE ="], "not valid"),
    ],
)
def test_a_wrong_binding_is_one_sentence(gin_file, bindings, words):
    with pytest.raises(UserError, match=words) as raised:
        configuration.load(gin_file(COMPLETE), bindings)
    assert "\n" not in str(raised.value)


def test_a_missing_file_is_named():
    with pytest.raises(UserError, match="runs/absent.gin"):
        configuration.load(["runs/absent.gin"])


def test_what_is_required_is_named(gin_file):
    configuration.load(gin_file(COMPLETE.replace("SIZE = 3", "SIZE = %gin.REQUIRED")))
    with pytest.raises(UserError, match="needs SIZE"):
        configuration.check("toy_parts.start")
    configuration.load(gin_file(COMPLETE.replace("= %SIZE", "= %gin.REQUIRED")), ["SIZE = 1"])
    with pytest.raises(UserError, match="needs toy_parts.Engine"):
        configuration.check("toy_parts.start")


def test_an_unset_name_is_named(gin_file):
    configuration.load(gin_file(COMPLETE))
    with pytest.raises(UserError, match="does not set MODEL"):
        configuration.value("MODEL")


def test_a_refusal_while_building_keeps_its_sentence(gin_file):
    configuration.load(gin_file(COMPLETE), ["SIZE = -1"])
    with pytest.raises(UserError) as raised:
        configuration.value("toy_parts.start.engine")
    assert str(raised.value).startswith("size=-1 is negative.")


def test_a_second_task_of_one_name_is_one_sentence(tmp_path, monkeypatch):
    lines = [
        "from simvlm_jax.tasks import openmoji",
        "openmoji.register('openmoji_captions', *'ab')",
    ]
    (tmp_path / "second_task.py").write_text("\n".join(lines))
    monkeypatch.syspath_prepend(tmp_path)
    run = tmp_path / "run.gin"
    run.write_text("from __gin__ import dynamic_registration\nimport second_task\n")
    with pytest.raises(UserError, match="duplicate provider: openmoji_captions") as raised:
        configuration.load([str(run)])
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("size", ["tiny", "small", "base", "large", "huge"])
def test_each_size_builds_its_network(size):
    configuration.load([f"models/{size}.gin"])
    assert isinstance(configuration.value("MODEL").config, SimVLMConfig)


def test_the_t5_style_is_one_more_file():
    configuration.load(["models/base.gin", "models/t5_style.gin"])
    assert configuration.value("MODEL").config.decoder_style == "t5"


def test_what_another_binding_replaced_may_stay_bound_but_only_that(gin_file):
    replaced = """
OTHER = @other/toy_parts.Engine()
other/toy_parts.Engine.size = 9
"""
    configuration.load(gin_file(COMPLETE + replaced))
    with pytest.raises(UserError, match="which nothing reads"):
        configuration.check("toy_parts.start")
    configuration.load(gin_file(COMPLETE + replaced + "REPLACED = [%OTHER]"))
    configuration.check("toy_parts.start")
    configuration.load(gin_file(COMPLETE + replaced + "REPLACED = [%OTHER]"), ["SIZ = 1"])
    with pytest.raises(UserError, match="sets SIZ, which nothing reads"):
        configuration.check("toy_parts.start")


def test_a_finetuning_file_makes_the_paper_s_classifier_and_needs_what_only_a_task_knows():
    files = ["models/tiny.gin", "finetune/classifier.gin"]
    task = ["TOTAL_STEPS = 3", "BATCH_SIZE = 2", "CLASSES = 7", "PRETRAINED = 'runs/x'"]
    configuration.load(files, task)
    configuration.check("loop.train")
    model = configuration.value("MODEL")
    assert (model.classes, model.features, model.nominal_batch_size) == (7, "decoder", 2)
    config = model.config
    assert (config.dropout_rate, config.stochastic_depth_rate) == (0.1, 0.1)
    assert config.image_size == (480, 480) and config.width == 192
    assert callable(configuration.value("loop.train.initial_params"))
    for missing in task:
        configuration.load(files, [line for line in task if line != missing])
        with pytest.raises(UserError, match=f"needs {missing.split()[0]}"):
            configuration.check("loop.train")
