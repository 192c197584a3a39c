import os

import fsspec
import pytest

from simvlm_jax.data.sources import Unreadable
from simvlm_jax.data.sources.named_files import LocalFolder, RemoteFolder, folder_of, open_folder
from simvlm_jax.errors import UserError

LEAVES = Unreadable("the image's path leaves the folder")
ABSENT = Unreadable("there is no such image file")


@pytest.fixture(params=["local", "memory"])
def folder(request, tmp_path):
    """A folder `inside` with three files, and one outside that nobody may read."""
    root = str(tmp_path) if request.param == "local" else f"memory://{tmp_path.name}"
    if request.param == "local":
        (tmp_path / "inside" / "sub").mkdir(parents=True)
    contents = {"inside/a": b"one", "inside/sub/b": b"two", "inside/empty": b"", "c": b"secret"}
    for name, content in contents.items():
        with fsspec.open(f"{root}/{name}", "wb") as file:
            file.write(content)
    return open_folder(f"{root}/inside")


def test_names_are_those_below(folder):
    assert folder.names() == ["a", "empty", "sub/b"]
    assert folder.has("sub/b") and not folder.has("b")


def test_contents_and_causes_keep_their_places(folder):
    names = ["sub/b", "../c", "a", "sub/../a", "none", 3, "sub/../../c", "/a", "", "a\0", "empty"]
    no_text = Unreadable("the image's path is not text")
    assert folder.read(names) == [
        b"two", LEAVES, b"one", b"one", ABSENT, no_text, LEAVES, LEAVES, ABSENT, ABSENT,
        Unreadable("the image file is empty"),
    ]  # fmt: skip
    assert folder.read([]) == []


def test_limits_and_what_sentences_call_it(folder):
    assert folder.read(["a"], "caption", 3) == [b"one"]
    assert folder.read(["a"], "caption", 2) == [Unreadable("the caption file is larger than 0 MiB")]
    assert folder.read(["none"], "caption") == [Unreadable("there is no such caption file")]


def test_no_chain_of_file_systems_leads_to_this_machine(tmp_path):
    (tmp_path / "secret").write_bytes(b"secret")
    names = [f"x::file://{tmp_path}/secret", f"x::{tmp_path}/secret", f"file://{tmp_path}/secret"]
    assert RemoteFolder("memory://somewhere").read(names) == [LEAVES] * 3


@pytest.mark.parametrize(
    ("path", "wanted"),
    [
        ("/data/set/a.jsonl", "/data/set"),
        ("gs://bucket/set/a?.jsonl", "gs://bucket/set"),
        ("https://host/set/a.jsonl?key=1/2", "https://host/set?key=1/2"),
    ],
)
def test_folders_of_files(path, wanted):
    assert folder_of(path) == wanted


def test_a_query_goes_with_every_file_and_names_are_quoted():
    asked = []
    folder = RemoteFolder("https://host/set?key=1/2")
    folder._files.read = lambda ranges, exact: asked.extend(ranges) or [b"x"] * len(ranges)
    folder.read(["sub/%2e%2e/a b?.png", "ü#.png"], limit=9)
    assert asked == [
        ("https://host/set/sub/%252e%252e/a%20b%3F.png?key=1/2", 0, 10),
        ("https://host/set/%C3%BC%23.png?key=1/2", 0, 10),
    ]


def test_links_are_followed_within_the_folder_only(tmp_path):
    (tmp_path / "inside").mkdir()
    (tmp_path / "c").write_bytes(b"secret")
    (tmp_path / "inside" / "a").write_bytes(b"one")
    os.symlink(tmp_path / "c", tmp_path / "inside" / "out")
    os.symlink(tmp_path / "inside" / "a", tmp_path / "inside" / "in")
    os.symlink(tmp_path, tmp_path / "inside" / "up")
    folder = LocalFolder(str(tmp_path / "inside"))
    assert folder.read(["out", "in", "up/c"]) == [LEAVES, b"one", LEAVES]
    assert folder.names() == ["a", "in", "out"]


def test_a_local_folder_must_be_there(tmp_path):
    with pytest.raises(UserError, match=f"no folder {tmp_path}/none"):
        open_folder(f"{tmp_path}/none")
