import hashlib
import os
import signal
import subprocess
import sys
import time

import pytest

from simvlm_jax.data.preparing import work
from simvlm_jax.data.preparing.work import Job, read_result, run_job
from simvlm_jax.errors import UserError


class Squares(Job):
    """Each part notes its process in a file; part `bad` does what it is told to."""

    name = "squaring"

    def __init__(self, log, count=6, bad=None, crime=None, sleep=0.0, together=1):
        self.log, self.count, self.bad, self.crime, self.sleep = log, count, bad, crime, sleep
        self.together = together  # so many processes wait for one another before they work

    def parts(self):
        return [2] * self.count

    def open(self):
        (self.log / f"opened-{os.getpid()}").touch()
        deadline = time.monotonic() + 60
        while len(list(self.log.glob("opened-*"))) < self.together:
            assert time.monotonic() < deadline
            time.sleep(0.05)

    def run(self, part):
        time.sleep(self.sleep)
        if part == self.bad and self.crime == "refuse":
            raise UserError("This part is bad.")
        if part == self.bad and self.crime == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        (self.log / f"{part}-{os.getpid()}").touch()
        return str(part**2).encode()

    def done(self):
        return sorted(int(path.name.split("-")[0]) for path in self.log.glob("[0-9]*-*"))


@pytest.fixture
def folders(tmp_path):
    (tmp_path / "log").mkdir()
    return tmp_path / "log", tmp_path / "results"


def results(folder, count=6):
    return [read_result(folder, part) for part in range(count)]


WANTED = [b"0", b"1", b"4", b"9", b"16", b"25"]


def test_in_this_process(folders):
    log, folder = folders
    told = []
    assert run_job(Squares(log), folder, 1, lambda *facts: told.append(facts)) == 0
    assert results(folder) == WANTED
    assert told == [("squaring", done, 12, 0) for done in range(0, 13, 2)]


def test_what_is_done_is_not_done_again_unless_it_is_damaged(folders):
    log, folder = folders
    run_job(Squares(log), folder, 1, lambda *_: None)
    for path in log.iterdir():
        path.unlink()
    damaged = work._path(folder, 3)
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"8")
    work._path(folder, 4).unlink()
    told = []
    assert run_job(Squares(log), folder, 1, lambda *facts: told.append(facts)) == 4
    assert Squares(log).done() == [3, 4] and results(folder) == WANTED
    assert told[0] == ("squaring", 8, 12, 8) and told[-1] == ("squaring", 12, 12, 8)


def test_a_job_can_disown_a_result(folders):
    log, folder = folders
    run_job(Squares(log), folder, 1, lambda *_: None)
    job = Squares(log)
    job.whole = lambda result: result != b"9"
    assert run_job(job, folder, 1, lambda *_: None) == 5


def test_nothing_is_opened_when_all_is_done(folders):
    log, folder = folders
    run_job(Squares(log), folder, 1, lambda *_: None)
    (log / f"opened-{os.getpid()}").unlink()
    run_job(Squares(log), folder, 2, lambda *_: None)
    assert not list(log.glob("opened-*"))


def test_several_processes_and_a_refusal_in_one(folders):
    log, folder = folders
    with pytest.raises(UserError, match="This part is bad"):
        run_job(Squares(log, bad=5, crime="refuse", together=2), folder, 2, lambda *_: None)
    assert len(list(log.glob("opened-*"))) == 2
    assert results(folder)[:4] == WANTED[:4]
    run_job(Squares(log), folder, 1, lambda *_: None)
    assert results(folder) == WANTED


def test_a_killed_process_is_a_sentence_and_no_hang(folders):
    log, folder = folders
    with pytest.raises(UserError, match="killed while squaring.*fewer --workers"):
        run_job(Squares(log, bad=2, crime="die"), folder, 2, lambda *_: None)


PROGRAM = """
import pathlib, sys
sys.path.insert(0, {tests!r})
from test_work import Squares
from simvlm_jax.data.preparing.work import run_job
log, folder = map(pathlib.Path, sys.argv[1:])
if __name__ == "__main__":
    run_job(Squares(log, count=100, sleep=0.1), folder, 2, lambda *_: None)
"""


def test_no_process_outlives_a_killed_parent(folders, tmp_path):
    log, folder = folders
    program = tmp_path / "program.py"
    program.write_text(PROGRAM.format(tests=os.path.dirname(__file__)))
    parent = subprocess.Popen([sys.executable, str(program), str(log), str(folder)])
    wait_for(lambda: Squares(log).done())
    workers = [int(path.name.split("-")[1]) for path in log.glob("opened-*")]
    assert workers and parent.pid not in workers
    parent.kill()
    parent.wait()
    wait_for(lambda: not any(is_alive(worker) for worker in workers))
    assert len(Squares(log).done()) < 100


def wait_for(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def is_alive(process):
    try:
        with open(f"/proc/{process}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_files_appear_whole(tmp_path):
    work.write_whole(tmp_path / "a", b"content")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert work.file_digest(tmp_path / "a") == hashlib.sha256(b"content").hexdigest()


def test_only_one_may_work(tmp_path):
    with work.alone(tmp_path / "x" / "work"):
        with pytest.raises(UserError, match="Another process is preparing .*/x;"):
            with work.alone(tmp_path / "x" / "work"):
                pass
    with work.alone(tmp_path / "x" / "work"):
        pass


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot be written"):
        with work.alone(tmp_path / "file" / "work"):
            pass
