"""`simvlm prepare pairs` as a person would run it, in processes of its own that get killed."""

import hashlib
import os
import signal
import subprocess
import sys
import time

import pytest

from made_inputs import example, image, pair, write
from simvlm_jax.cli.main import main

COMMAND = [sys.executable, "-m", "simvlm_jax.cli.main", "prepare", "pairs"]
COUNT = 4000


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Enough records that a killed run is killed in its middle."""
    images = [image(number, (40, 40)) for number in range(50)]
    ends = (bytes([number % 256, number // 256]) for number in range(COUNT))
    rows = (example(image=images[n % 50] + end, caption=f"{n}") for n, end in enumerate(ends))
    return write(tmp_path_factory.mktemp("input") / "in", rows)


def arguments(folder, data, name="photos"):
    found = [f"--input={folder}", f"--data_dir={data}", f"--name={name}"]
    return [*found, "--records_per_shard=300", "--validation_share=0.2", "--duplicates=image"]


@pytest.fixture(scope="module")
def whole(folder, tmp_path_factory):
    """What a run without interruption gives, in one process."""
    data = tmp_path_factory.mktemp("data")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SIMVLM_DATA_DIR", str(data))
        assert main(["prepare", "pairs", *arguments(folder, data), "--workers=1"]) == 0
    return digests(data / "photos")


def digests(folder):
    found = sorted(folder.glob("*.array_record"))
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in found}


@pytest.fixture(autouse=True)
def own_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("SIMVLM_DATA_DIR", str(tmp_path / "default"))


@pytest.mark.parametrize(
    ("stop", "code", "pattern"),
    [
        (signal.SIGKILL, -9, ".working-train/*/examined/*.done"),
        (signal.SIGKILL, -9, ".working-train/*/written-train/*.done"),
        (signal.SIGINT, 130, ".working-train/*/examined/*.done"),
    ],
)
def test_a_stopped_run_goes_on_to_the_same_bytes(
    folder, whole, tmp_path, capsys, stop, code, pattern
):
    process = subprocess.Popen(
        [*COMMAND, *arguments(folder, tmp_path)], stderr=subprocess.PIPE, start_new_session=True
    )
    end = time.monotonic() + 60
    while not list((tmp_path / "photos").glob(pattern)):
        assert process.poll() is None and time.monotonic() < end
        time.sleep(0.002)
    os.killpg(process.pid, stop) if stop == signal.SIGINT else process.send_signal(stop)
    error = process.communicate()[1].decode()
    assert process.returncode == code and "Traceback" not in error
    assert not digests(tmp_path / "photos")
    assert main(["prepare", "pairs", *arguments(folder, tmp_path), "--workers=1"]) == 0
    printed = capsys.readouterr()
    assert f"examining {COUNT}/{COUNT}" in printed.err
    assert digests(tmp_path / "photos") == whole
    assert not (tmp_path / "photos" / ".working-train").exists()
    assert main(["prepare", "pairs", *arguments(folder, tmp_path)]) == 0
    assert "prepared before with these settings; all digests agree" in capsys.readouterr().out


def refused(capsys, *given):
    capsys.readouterr()
    try:
        code = main(["prepare", *given])
    except SystemExit as end:
        code = end.code
    printed = capsys.readouterr()
    assert code == 2 and printed.err.count("\n") == 1 and printed.err.endswith(".\n")
    return printed.err


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["pairs"], "required: --input, --name"),
        (["pears"], "invalid choice: 'pears'"),
        ([], "required: DATASET"),
        (["pairs", "--inptu=a"], "no flag --inptu (did you mean --input?)"),
        (["pairs", "--input=none", "--name=a"], "nothing at --input="),
        (["pairs", "--input=none", "--name=../a"], "--name='../a' is no name"),
        (["pairs", "--input=none", "--name=a", "--split=b/c"], "--split='b/c' is no name"),
        (["pairs", "--input=none", "--name=a", "--format=excel"], "invalid choice: 'excel'"),
        (["pairs", "--input=none", "--name=a", "--shards=0"], "'0' is not a whole number from 1"),
        (["pairs", "--input=none", "--name=a", "--image_field="], "Pairs need images"),
        (["documents", "--input=none", "--name=a"], "There is no vocabulary"),
        (["vocabulary", "--input=none"], "nothing at --input="),
    ],
)
def test_a_wrong_command_line_is_one_sentence(capsys, tmp_path, given, words):
    assert words in refused(capsys, *given)
    assert not (tmp_path / "default").exists()


def test_several_data_sets_live_in_one_folder(tmp_path, capsys):
    inputs = write(tmp_path / "in", [pair(n, caption=f"a red picture {n}") for n in range(9)])
    given = [f"--input={inputs}", f"--data_dir={tmp_path / 'data'}", "--workers=1"]
    for name in ("one", "two"):
        assert main(["prepare", "pairs", *given, f"--name={name}", "--max_caption=99"]) == 0
    assert "max_caption=99, not max_caption=98" in refused(
        capsys, "pairs", *given, "--name=one", "--max_caption=98"
    )
    small = ["--size=8", "--vocabulary_size=400", "--document_tokens=16", "--limit=20"]
    assert main(["prepare", "openmoji", given[1], *small]) == 0
    assert {p.name for p in (tmp_path / "data").iterdir()} >= {"one", "two", "openmoji"}
    assert main(["prepare", "openmoji", given[1], *small]) == 0
    assert "all digests agree" in capsys.readouterr().out
    error = refused(capsys, "pairs", *given, "--name=openmoji")
    assert "was not prepared by this command" in error
