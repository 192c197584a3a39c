import threading
import time

import pytest

from simvlm_jax.data.sources import opening
from simvlm_jax.data.sources.opening import open_all
from simvlm_jax.errors import UserError


def test_answers_have_the_order_of_the_shards():
    def work(shard, stop):
        time.sleep(0.05 if shard == "a" else 0)
        return shard.upper()

    assert open_all(work, ["a", "b", "c"], "opening") == ["A", "B", "C"]
    assert open_all(work, [], "opening") == []


def test_shards_are_worked_on_beside_each_other():
    together = threading.Barrier(4)
    open_all(lambda shard, stop: together.wait(10), "abcd", "opening", threads=4)


def test_a_refusal_stops_the_others():
    stopped = []

    def work(shard, stop):
        if shard == "b":
            raise UserError("b is bad")
        stopped.append(stop.wait(10))

    with pytest.raises(UserError, match="b is bad"):
        open_all(work, ["a", "b"], "opening")
    assert stopped == [True]


def test_long_work_tells_how_far_it_is(capsys, monkeypatch):
    monkeypatch.setattr(opening, "PROGRESS_SECONDS", 0.05)
    release, count = threading.Event(), []

    def slow(shard, stop):
        count.append(shard)
        if len(count) == 3:
            release.wait(0.4)
        return shard

    assert open_all(slow, ["a", "b", "c"], "indexing", 1) == ["a", "b", "c"]
    assert "indexing shards: 2 of 3 done" in capsys.readouterr().err


@pytest.mark.parametrize("work", [KeyError, UserError])
def test_what_work_raises_comes_out(work):
    def fail(shard, stop):
        raise work("x")

    with pytest.raises(work):
        open_all(fail, ["a", "b"], "opening")
