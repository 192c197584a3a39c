"""`simvlm compile` on forced CPU devices, in processes of its own: JAX's devices cannot change."""

import importlib.util
import json
import os
import subprocess
import sys

import jax
import pytest

from simvlm_jax.cli import compile as compile_verb
from simvlm_jax.data.streams import GroupStream
from simvlm_jax.partitioning import Partitioner
from simvlm_jax.planning import job, memory
from simvlm_jax.planning.job import Shapes
from simvlm_jax.planning.report import report
from simvlm_jax.planning.topologies import open_topology
from simvlm_jax.testing import tiny_config, tiny_groups, tiny_model
from simvlm_jax.training import optimizers

HAS_LIBTPU = importlib.util.find_spec("libtpu") is not None
SMALL = [
    "config.SimVLMConfig.conv_layers = (1,)",
    "config.SimVLMConfig.scan_layers = True",
    "BATCH_SIZE = 16",
]
CUT = ["STRATEGY = 'fsdp'", "partitioning.Partitioner.fewest_cut = 1"]
KEYS = {
    "topology", "devices", "chips", "parameters", "fits", "hbm_bytes_per_device", "hbm_limit_bytes",
    "flops_per_step", "collective_bytes", "seconds_floor", "binding", "mfu_bound",
    "compile_seconds",
}  # fmt: skip


def compile_demo(*arguments, bindings=()):
    gin = [part for binding in [*SMALL, *bindings] for part in ("--gin", binding)]
    command = [sys.executable, "-m", "simvlm_jax.cli.main", "compile", "--gin_file=runs/demo.gin"]
    environment = {**os.environ, "XLA_FLAGS": ""}
    return subprocess.run(
        [*command, *gin, *arguments], capture_output=True, text=True, env=environment
    )


@pytest.fixture(scope="module")
def plan():
    histograms = ["--pair_tokens=4:1,12:1", "--document_tokens=16"]
    done = compile_demo("--topology=cpu:8", "--json", *histograms, bindings=CUT)
    assert done.returncode == 0, done.stderr
    assert "mesh data=1 x fsdp=8 x tensor=1 on cpu:8 (8 CPU devices)" in done.stderr
    (line,) = done.stdout.splitlines()
    return json.loads(line)


def test_one_object_with_every_entry(plan):
    assert set(plan) >= KEYS
    assert (plan["devices"], plan["chips"], plan["topology"]) == (8, 8, "cpu:8")
    assert plan["fits"] and plan["hbm_limit_bytes"] is None and plan["mfu_bound"] is None
    assert plan["examples_per_step"] == 16 * 9


def test_memory_adds_up(plan):
    parts = dict(plan["hbm_parts"])
    total = parts.pop("total")
    assert plan["hbm_bytes_per_device"] == total == pytest.approx(sum(parts.values()))
    assert min(parts.values()) >= 0
    # AdamW keeps two numbers for each parameter; its counters are nothing beside them.
    assert parts["optimizer"] == pytest.approx(2 * parts["parameters"], rel=1e-3)
    assert parts["parameters"] < 4 * plan["parameters"] / 4  # most are cut in eight


def test_operations_agree_with_the_formula(plan):
    """The program runs what the formula counts: nothing is recomputed here."""
    assert plan["executed_flops_per_step"] == pytest.approx(plan["flops_per_step"], rel=0.03)


def test_cut_parameters_are_gathered(plan):
    sent = plan["collective_bytes"]["ici"]
    assert plan["collective_bytes"]["dcn"] == {}
    cut = 4 * plan["parameters"]
    # At least once forwards, every device sends its eighth of most parameters to seven others.
    assert 0.3 * cut * 7 / 8 < sent["all-gather"] < 4 * cut
    assert sum(sent.values()) > 1.5 * cut


def test_shorter_texts_are_less_work(plan):
    assert 0.5 < plan["real_token_share"] < 1


def test_the_report_says_it_in_words(plan):
    text = report(plan)
    assert "cpu:8 (8 CPU devices), mesh data=1 x fsdp=8 x tensor=1" in text
    assert "GiB a device" in text and "all-gather" in text
    filled = dict(
        plan, hbm_limit_bytes=2**34, binding="ici", mfu_bound=0.5, mfu_bound_real_tokens=0.25,
        seconds_floor={"compute": 0.1, "hbm": 0.05, "ici": 0.2, "dcn": 0.0}, days=2.0,
        chip_hours=384.0, examples_per_second=720.0, total_steps=1000, compiler_seconds=0.3,
        mfu_estimate=0.33, days_estimate=3.0, chip_hours_estimate=576.0,
    )  # fmt: skip
    text = report(filled)
    assert "compute 100.0, hbm 50.0, ici 200.0, dcn 0.0; ici binds" in text
    assert "50.0% over all tokens, 25.0% over real ones" in text
    assert "expects 300.0 ms" in text and "2.0 days, 384 chip-hours" in text
    assert "MFU 33.0%, 3.0 days, 576 chip-hours" in text
    short = {name: filled[name] for name in filled if name not in ("collective_bytes", "hbm_parts")}
    assert "does not fit: " in report(dict(short, fits=False))


@pytest.mark.parametrize("step", ["finetune", "evaluate", "decode"])
def test_other_steps(step):
    sizes = [] if step != "finetune" else ["BATCH_SIZE = 1"]
    done = compile_demo("--topology=cpu:1", "--json", f"--step={step}", bindings=sizes)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["examples_per_step"] == (8 if step == "finetune" else 8 * 16)
    trains = step == "finetune"
    assert (found["hbm_parts"]["activations"] > 0) == trains
    assert (found["hbm_parts"]["optimizer"] > 0) == trains


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--topology=v5litepod-256"], "is not a topology"),
        (["--topology=cpu:8", "--pair_tokens=long"], "is no histogram of lengths"),
        (["--topology=cpu:1", "--text=/no/such/folder/x"], "cannot be written: No such file"),
        (["--topology=cpu:3"], "A batch of 16 groups cannot be shared out evenly over 3 devices"),
    ],
)
def test_bad_input_gets_one_sentence(arguments, words):
    done = compile_demo(*arguments)
    assert done.returncode == 2
    lines = [line for line in done.stderr.splitlines() if words in line]
    assert len(lines) == 1 and "Traceback" not in done.stderr and not done.stdout


def test_refusals_of_the_compiler_tell_the_bytes():
    message = "Ran out of memory in memory space hbm. Used 20.50G of 15.75G hbm. Exceeded by 4.75G."
    assert memory.shortage(message) == (20.5 * 2**30, 15.75 * 2**30)
    message = "required for HLO temporaries (384.00G) exceeds available HBM (30.75G)."
    assert memory.shortage(message) == (384 * 2**30, 30.75 * 2**30)
    assert memory.shortage("INTERNAL: something else") is None


def planned(**changes):
    config = tiny_config(conv_layers=(), **changes)
    batch = tiny_groups(config, 4)
    shapes = Shapes(
        {name: leaf.shape for name, leaf in batch.items()},
        {name: leaf.dtype for name, leaf in batch.items()},
    )
    model = tiny_model(config, nominal_batch_size=4)
    optimizer = optimizers.adamw(total_steps=4)
    return job.build("train", model, optimizer, Partitioner(), shapes, open_topology("cpu:1"))


def test_activations_shrink_with_rematerialisation():
    none, dots, full = (
        memory._activations(planned(remat_policy=policy)) for policy in ("none", "dots", "full")
    )
    assert none > 1.5 * dots > 1.5 * full > 0


def test_the_plan_and_the_progress_line_use_one_formula():
    found = planned()
    assert found.model_flops == found.model.train_flops(found.shapes.input_shapes)


def test_bytes_of_trees_are_those_of_one_device():
    sharding = jax.sharding.NamedSharding(
        jax.sharding.AbstractMesh((4,), ("x",)), jax.sharding.PartitionSpec("x")
    )
    tree = [
        jax.ShapeDtypeStruct((8, 3), "float32", sharding=sharding),
        jax.ShapeDtypeStruct((4,), "bfloat16", sharding=sharding),
    ]
    assert memory.tree_bytes(tree) == 2 * 3 * 4 + 2


@pytest.mark.skipif(not HAS_LIBTPU, reason="libtpu is not installed")
def test_a_tpu_slice(tmp_path):
    """The whole way for a real chip: the demo's step on four of v5e, cut along one axis."""
    text = tmp_path / "program.txt"
    done = compile_demo("--topology=v5e:2x2", "--json", f"--text={text}", bindings=CUT)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["label"], found["fits"]) == ("v5e:2x2 (4 chips)", True)
    assert found["hbm_limit_bytes"] == 15.75 * 2**30
    floors = found["seconds_floor"]
    assert set(floors) == {"compute", "hbm", "ici", "dcn"} and floors["dcn"] == 0
    assert found["binding"] == max(floors, key=floors.get)
    # Of the peak, useful operations in the time of the longest floor.
    peak = 4 * 197e12 * floors[found["binding"]]
    assert found["mfu_bound"] == pytest.approx(found["flops_per_step"] / peak)
    assert found["executed_flops_per_step"] == pytest.approx(found["flops_per_step"], rel=0.1)
    assert found["compiler_seconds"] > floors["compute"]
    expected = max(found["compiler_seconds"], *floors.values())
    peak = 4 * 197e12 * expected
    assert found["mfu_estimate"] == pytest.approx(found["flops_per_step"] / peak)
    for scope in ("conv_stage", "encoder", "decoder", "loss", "optimizer"):
        assert scope in text.read_text(), scope


def test_the_command_s_steps_are_those_that_can_be_built():
    assert compile_verb.STEPS == job.STEPS


def test_a_plan_s_batch_is_the_stream_s(data_folder):
    import simvlm_jax.tasks  # noqa: F401 - registers them

    settings = dict(
        pairs={"openmoji_prefix_lm": 2, "openmoji_captions": 1},
        documents={"documents_prefix_lm": 3},
        groups=4,
        pair_lengths={"image": 1, "example_seed": 2, "inputs": 12, "targets": 20},
        document_lengths={"inputs": 7, "targets": 9},
        image_size=(32, 48),
        seed=0,
    )
    for changes in ({}, {"documents": {}}, {"pairs": {}}):
        stream, planned_batch = (
            GroupStream(**settings | changes),
            job.batch_shapes(settings | changes),
        )
        assert planned_batch.input_shapes == stream.input_shapes
        assert planned_batch.input_types == stream.input_types
