"""Frozen parameters: bit for bit what they were, with nothing kept for them, through any run."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AbstractMesh

from simvlm_jax.errors import UserError
from simvlm_jax.partitioning import AXES, Layout, Partitioner
from simvlm_jax.training import freezing, optimizers, reading
from simvlm_jax.training.state import abstract_state, first_state, lay_out
from simvlm_jax.training.step import compile_step
from standin import Model, Stream, run, same

FROZEN = ["table/.*", ".*/bias"]
HERE = lay_out(Model(), Stream(), Partitioner(), jax.devices()[:1])


def bits(tree):
    return jax.tree.map(lambda leaf: np.asarray(leaf).view(np.uint32), tree)


def initial():
    params = Model().get_initial_variables(jax.random.key(1), {})["params"]
    # A bit that a sum with 0 would change.
    return params | {"table": {"embedding": params["table"]["embedding"].at[0, 0].set(-0.0)}}


@pytest.mark.parametrize("accumulate", [1, 3])
def test_frozen_parameters_keep_every_bit_and_the_run_resumes_to_the_bit(tmp_path, accumulate):
    optimizer = {"frozen": FROZEN, "accumulate": accumulate, "ema_decay": 0.9}
    start = initial()
    whole = run(tmp_path / "whole", initial_params=start, optimizer=optimizer)
    same(bits(whole.params["table"]), bits(start["table"]))
    same(bits(whole.params["hidden"]["bias"]), bits(start["hidden"]["bias"]))
    moved = jax.tree.map(lambda a, b: bool(np.any(a != b)), whole.params, start)
    assert moved["hidden"]["kernel"] and moved["head"]["kernel"]

    run(tmp_path / "parts", 4, initial_params=start, optimizer=optimizer)
    same(run(tmp_path / "parts", optimizer=optimizer), whole)

    average = reading.restore_params(tmp_path / "whole", ema=True)
    assert jax.tree.map(np.shape, average) == jax.tree.map(np.shape, whole.params)
    same(bits(average["table"]), bits(start["table"]))  # a frozen one is its own average
    kept = optimizers.ema_params(whole.opt_state)
    same(average["head"], kept["head"])
    assert isinstance(kept["table"]["embedding"], optax.MaskedNode)


def test_the_others_are_trained_as_if_the_frozen_were_constants():
    """Clipping and decay see nothing of them; compared with an optimizer of the others alone."""
    settings = dict(total_steps=4, clip_norm=0.01, weight_decay=0.3)
    params, random = initial(), np.random.default_rng(0)
    gradient = jax.tree.map(lambda leaf: random.standard_normal(leaf.shape, np.float32), params)
    partial = optimizers.adamw(0.1, frozen=FROZEN, **settings)
    updates, _ = partial.update(gradient, partial.init(params), params)
    others = lambda tree: {"hidden": tree["hidden"]["kernel"], "head": tree["head"]["kernel"]}  # noqa: E731
    named = lambda tree: {name: {"kernel": leaf} for name, leaf in others(tree).items()}  # noqa: E731
    whole = optimizers.adamw(0.1, **settings)
    expected, _ = whole.update(named(gradient), whole.init(named(params)), named(params))
    jax.tree.map(np.testing.assert_array_equal, named(updates), expected)
    # XLA may leave out an addition of 0; without it every bit counts.
    with jax.disable_jit():
        after = optax.apply_updates(params, updates)
    same(bits(after["table"]), bits(params["table"]))


def test_no_state_is_kept_for_frozen_parameters_and_the_rest_is_sharded():
    optimizer = optimizers.adamw(total_steps=4, ema_decay=0.9, accumulate=2, frozen=FROZEN)
    target = abstract_state(Model(), optimizer, Stream(), Layout(AbstractMesh((1, 2, 1), AXES), 1))
    paths = jax.tree_util.tree_leaves_with_path(target.opt_state)
    names = [jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in paths]
    assert not [name for name in names if "table" in name or "bias" in name]
    kernels = [leaf for name, (_, leaf) in zip(names, paths, strict=True) if "kernel" in name]
    # Two moments, the average and the accumulator of two kernels.
    assert len(kernels) == 8
    assert all("fsdp" in leaf.sharding.spec for leaf in kernels)


def test_the_backward_pass_ends_at_what_is_trained():
    def additions_into_tables(frozen):
        optimizer = optimizers.adamw(total_steps=4, frozen=frozen)
        target = abstract_state(Model(), optimizer, Stream(), HERE)
        step = compile_step(Model(), optimizer, target, HERE, seed=0)
        return str(step.trace(target, Stream().batch(0)).jaxpr).count("scatter-add[")

    # The gradient of a look-up is one; that of the chosen logit stays.
    assert (additions_into_tables([]), additions_into_tables(["table/.*"])) == (2, 1)


def test_a_model_can_say_what_it_does_not_train(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(Model, "frozen", ("(?!head/).*",), raising=False)
    start = initial()
    state = run(tmp_path, 3, initial_params=start, optimizer={"weight_decay": 0.5})
    same(bits(state.params["table"]), bits(start["table"]))
    same(bits(state.params["hidden"]), bits(start["hidden"]))
    assert np.any(state.params["head"]["kernel"] != start["head"]["kernel"])
    told = "frozen: 3 of 4 arrays, 136 of 168 parameters, in hidden, table"
    assert told in capsys.readouterr().err
    # The optimizer may say the same, too.
    twice = run(tmp_path / "b", 3, initial_params=start, optimizer={"frozen": ["(?!head/).*"]})
    assert np.any(twice.params["head"]["kernel"] != start["head"]["kernel"])


def test_freezing_again_joins_the_patterns_and_freezing_nothing_is_nothing():
    plain = optax.sgd(0.1)
    assert freezing.freeze(plain, []) is plain
    twice = freezing.freeze(freezing.freeze(plain, ["a"]), ["b", "a"])
    assert (twice.inner, twice.patterns) == (plain, ("a", "b"))
    state = first_state({"a": jnp.ones(2), "b": jnp.ones(2), "c": jnp.ones(2)}, twice)
    assert freezing.describe(twice, object(), state.params) == [
        "frozen: 2 of 3 arrays, 4 of 6 parameters, in a, b"
    ]


@pytest.mark.parametrize(
    ("patterns", "words"),
    [
        (["tabel/.*"], r"'tabel/\.\*' of what is frozen matches no parameter's path, such as"),
        (["table"], "'table' of what is frozen matches no"),  # a pattern is for the whole path
        (["[a"], r"'\[a' of what is frozen is no regular expression"),
        ([7], "7 of what is frozen is no regular expression"),
        ([".*"], "freeze every parameter, so that nothing is trained"),
        ("table/.*", r"must be a list of patterns: \['table/\.\*'\]"),
    ],
)
def test_patterns_that_do_nothing_or_too_much_are_refused(tmp_path, patterns, words):
    with pytest.raises(UserError, match=words):
        run(tmp_path, optimizer={"frozen": patterns})
