import os
import threading

import numpy as np
import pytest

from simvlm_jax.data.sources.descriptors import Descriptors

FILES, BYTES = 12, 5000


@pytest.fixture
def paths(tmp_path):
    for number in range(FILES):
        (tmp_path / str(number)).write_bytes(bytes([number]) * BYTES)
    return [str(tmp_path / str(number)) for number in range(FILES)]


def open_files(folder):
    links = (f"/proc/self/fd/{number}" for number in os.listdir("/proc/self/fd"))
    return sum(os.readlink(link).startswith(str(folder)) for link in links if os.path.lexists(link))


def test_few_stay_open_and_none_at_the_end(paths, tmp_path):
    descriptors = Descriptors(most=3)
    for path in paths * 2:
        descriptors.read(path, 0, 1)
    assert len(descriptors) == open_files(tmp_path) == 3
    del descriptors
    assert open_files(tmp_path) == 0


def test_the_most_recent_stay(paths):
    descriptors = Descriptors(most=2)
    for path in (paths[0], paths[1], paths[0], paths[2]):
        descriptors.read(path, 0, 1)
    for path in paths:
        os.unlink(path)
    assert descriptors.read(paths[0], 10, 3) == bytes(3)
    with pytest.raises(FileNotFoundError):
        descriptors.read(paths[1], 0, 1)


def test_ends_of_files(paths):
    descriptors = Descriptors()
    assert descriptors.read(paths[1], BYTES - 2, 5) == b"\1\1"
    assert descriptors.read(paths[1], BYTES + 2, 5) == b""
    assert descriptors.read(paths[1], 0, 0) == b""


def test_many_threads_never_get_another_files_bytes(paths, tmp_path):
    descriptors, wrong = Descriptors(most=2), []

    def read(seed):
        for number in np.random.default_rng(seed).integers(0, FILES, 400):
            if descriptors.read(paths[number], 0, BYTES) != bytes([number]) * BYTES:
                wrong.append(number)

    threads = [threading.Thread(target=read, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong and open_files(tmp_path) == 2


def test_a_file_in_use_is_not_closed(paths, monkeypatch):
    descriptors, pread = Descriptors(most=1), os.pread

    def read_others_meanwhile(number, length, offset):
        monkeypatch.setattr(os, "pread", pread)
        for path in paths[1:]:
            descriptors.read(path, 0, 1)
        return pread(number, length, offset)

    monkeypatch.setattr(os, "pread", read_others_meanwhile)
    assert descriptors.read(paths[0], 0, 4) == bytes(4)
    assert len(descriptors) == 1
