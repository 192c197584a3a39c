import threading

import pytest

from simvlm_jax.data.sources.recent import Recent


def test_the_oldest_go_first():
    recent, loaded = Recent(10), []

    def get(key, size=4):
        return recent.get(key, lambda: (loaded.append(key) or key.upper(), size))

    assert [get(key) for key in "abab"] == ["A", "B", "A", "B"] and loaded == ["a", "b"]
    get("a")
    get("c")  # 12 bytes: b was used longest ago
    get("a")
    assert loaded == ["a", "b", "c"]
    get("b")
    assert loaded == ["a", "b", "c", "b"]
    get("d", size=11)  # too large to keep; nor is anything else left
    get("d", size=11)
    assert loaded[-2:] == ["d", "d"]


def test_what_fails_is_tried_again():
    recent = Recent(10)
    with pytest.raises(ZeroDivisionError):
        recent.get("a", lambda: 1 / 0)
    assert recent.get("a", lambda: (5, 1)) == 5


def test_two_threads_do_not_load_the_same():
    recent, loads, waiting = Recent(10), [], threading.Event()

    def load():
        loads.append(1)
        waiting.wait(0.2)
        return "value", 1

    threads = [threading.Thread(target=recent.get, args=("a", load)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(loads) == 1
