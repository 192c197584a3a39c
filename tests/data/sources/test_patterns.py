import fsspec
import pytest

from simvlm_jax.data.sources.patterns import PatternSource, find_shards
from simvlm_jax.errors import UserError

OWNER = "The split 'train' of photos"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("SIMVLM_DATA_DIR", str(tmp_path))
    (tmp_path / "photos" / "more").mkdir(parents=True)
    for name in ("b.tar", "a.tar", "a.tar.index", "c.txt", "[x].tar", "more/d.tar"):
        (tmp_path / "photos" / name).write_bytes(b"")
    return tmp_path / "photos"


def names(patterns, folder):
    return [path.removeprefix(f"{folder}/") for path in find_shards(patterns, OWNER)]


@pytest.mark.parametrize(
    ("patterns", "wanted"),
    [
        ("photos/a.tar", ["a.tar"]),
        ("photos/*.tar", ["[x].tar", "a.tar", "b.tar"]),
        ("photos/a*", ["a.tar"]),
        ("photos/**/*.tar", ["[x].tar", "a.tar", "b.tar", "more/d.tar"]),
        ("photos/[x].tar", ["[x].tar"]),  # a file of that very name, not a set of letters
        ("photos/[ab].tar", ["a.tar", "b.tar"]),
        (["photos/b.tar", "photos/a.*"], ["b.tar", "a.tar"]),
        ("photos/{8..11}.tar", ["8.tar", "9.tar", "10.tar", "11.tar"]),
        ("photos/{008..011}.tar", ["008.tar", "009.tar", "010.tar", "011.tar"]),
        ("photos/{0..1}-{00..01}", ["0-00", "0-01", "1-00", "1-01"]),
        ("photos/{0..1}-{a,b}", ["0-{a,b}", "1-{a,b}"]),
    ],
)
def test_patterns(folder, patterns, wanted):
    assert names(patterns, folder) == wanted


def test_where_paths_lie(folder, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("SIMVLM_DATA_DIR", str(tmp_path / "elsewhere"))
    given = [folder / "a.tar", f"file://{folder}/b.tar", "~/c.tar", "d.tar"]
    given += ["gs://bucket/{0..1}.tar", "http://host/e.tar?version=3"]
    assert find_shards(given, OWNER) == [
        f"{folder}/a.tar",
        f"{folder}/b.tar",
        f"{tmp_path}/home/c.tar",
        f"{tmp_path}/elsewhere/d.tar",
        "gs://bucket/0.tar",
        "gs://bucket/1.tar",
        "http://host/e.tar?version=3",
    ]


def test_folders_as_shards(folder):
    assert find_shards("photos/m*", OWNER, folders=True) == [str(folder / "more")]
    assert find_shards("photos/more/", OWNER, folders=True) == [str(folder / "more")]
    assert find_shards("gs://bucket/more/", OWNER, folders=True) == ["gs://bucket/more"]
    with pytest.raises(UserError, match="nothing is found"):
        find_shards("photos/*.tar", OWNER, folders=True)


def test_folders_of_a_store_as_shards(tmp_path):
    for name in ("b/x.txt", "a/x.txt", "c.txt"):
        with fsspec.open(f"memory://{tmp_path.name}/{name}", "wb") as file:
            file.write(b"x")
    place = f"memory://{tmp_path.name}"
    assert find_shards(f"{place}/*", OWNER, folders=True) == [f"{place}/a", f"{place}/b"]
    assert find_shards(f"{place}/*", OWNER) == [f"{place}/c.txt"]


def test_a_source_finds_its_shards_when_asked(folder):
    class Source(PatternSource):
        def open(self, shards):
            raise AssertionError

    made = Source("photos", {"train": ["photos/[ab].tar"], "test": "photos/none*"}, {})
    assert made.list_shards("train") == [str(folder / name) for name in ("a.tar", "b.tar")]
    with pytest.raises(UserError, match="The split 'test' of photos has no files"):
        made.list_shards("test")


@pytest.mark.parametrize(
    ("patterns", "sentence"),
    [
        ([], "names no files"),
        ("photos/*.parquet", "nothing is found at .*photos/.*parquet"),
        ("photos", "names the folder"),
        ("photos/m*", "nothing is found"),  # a folder alone
        (["photos/a.tar", "photos/*.tar"], "names .*a.tar twice"),
        ("photos/\0.tar", r"'photos/\\x00.tar', which cannot be a path"),
        ("", "cannot be a path"),
        ("photos/{3..1}.tar", "must count up"),
        ("photos/{0..1000000}.tar", "at most 1000000"),
        ("photos/{0..9999}{0..9999}.tar", "more than 1000000 files"),
        ("nowhere://bucket/*.tar", "a scheme that is not known"),
    ],
)
def test_what_cannot_be_is_a_sentence(folder, patterns, sentence):
    with pytest.raises(UserError, match=f"(?:{OWNER} )?.*{sentence}"):
        find_shards(patterns, OWNER)


def test_a_glob_finds_all_numbered_files_or_none(folder):
    for number in (0, 1, 3):
        (folder / f"train-{number:05}-of-00004.tar").write_bytes(b"")
    with pytest.raises(UserError, match="should have 4 files .* and has 3"):
        find_shards("photos/train-*", OWNER)
    assert len(find_shards("photos/train-{00000..00001}-of-00004.tar", OWNER)) == 2
    (folder / "train-00002-of-00004.tar").write_bytes(b"")
    assert [name[6:11] for name in names("photos/train-*", folder)] == [
        "00000",
        "00001",
        "00002",
        "00003",
    ]
