"""From the names a person gives for a split to an ordered list of shards."""

import glob
import os
import re
from collections.abc import Mapping, Sequence

from simvlm_jax.data.paths import data_dir
from simvlm_jax.data.sources.base import Features, RecordSource
from simvlm_jax.data.sources.files import is_local, refuse_password, remote_glob
from simvlm_jax.errors import UserError

MOST_SHARDS = 1_000_000
MOST_RANGES = 20  # in one pattern
INDEX_SUFFIX = ".index"
Patterns = str | Sequence[str]
_RANGE = re.compile(r"\{(\d{1,18})\.\.(\d{1,18})\}")
_NUMBERED = re.compile(r"(.*)-(\d+)-of-(\d+)(.*)")
_WILD = re.compile(r"[*?[]")


class PatternSource(RecordSource):
    """A source whose splits are patterns of shards."""

    folders = False  # whether a shard is a folder

    def __init__(self, name: str, splits: Mapping[str, Patterns], features: Features):
        """Describes the source; nothing is looked for yet.

        Args:
          name: what sentences call it.
          splits: of each split, its shards as `find_shards` takes them.
          features: what to parse from each record.
        """
        super().__init__(name, tuple(splits), features)
        self._patterns = {
            split: patterns if isinstance(patterns, str | os.PathLike) else tuple(patterns)
            for split, patterns in splits.items()
        }

    def shards(self, split: str) -> list[str]:
        """Returns the paths of a split's shards, in order."""
        owner = f"The split {split!r} of {self._name}"
        return find_shards(self._patterns[split], owner, self.folders)


def find_shards(patterns: Patterns, owner: str, folders: bool = False) -> list[str]:
    """Lists shards in their order: pattern after pattern, each pattern's files by name.

    Example: `["a-{08..10}.tar", "gs://bucket/b-*.tar"]` gives a-08.tar, a-09.tar, a-10.tar of the
    data folder and then what the bucket has, without index files.

    Args:
      patterns: a path, a glob (`*`, `?`, `[`, `**`), a brace range, or a list of those. A relative
        one lies in the data folder; one with a scheme (`gs://`, `s3://`, `http://`) is as it is.
      owner: whose they are, for sentences, for example "The split 'train' of photos".
      folders: the shards are folders and not files.

    Returns:
      Paths; a local one is absolute where the data folder or the pattern is.

    Raises:
      UserError: no file, a file twice, numbered files (`-00003-of-00010`) of which a glob finds
        only some, a pattern that cannot be a name, or a scheme that is not installed.
    """
    if isinstance(patterns, str | os.PathLike):
        patterns = [patterns]
    shards = []
    for given in patterns:
        pattern = placed(os.fspath(given), owner)
        for path in _expand_braces(pattern, owner):
            shards += _matches(path, owner, folders)
    if not shards:
        raise UserError(f"{owner} names no files; give a path, a glob or a list of them.")
    seen: set[str] = set()
    for shard in shards:
        if shard in seen:
            raise UserError(f"{owner} names {shard} twice; its records would count twice.")
        seen.add(shard)
    return shards


def placed(pattern: str, owner: str) -> str:
    """Returns where a path lies: a relative one in the data folder, a URL where it says.

    Raises:
      UserError: it cannot be a path.
    """
    if "\0" in pattern or not pattern:
        raise UserError(f"{owner} names the file {pattern!r}, which cannot be a path.")
    refuse_password(pattern, owner)
    pattern = pattern.removeprefix("file://").removeprefix("local://")
    return str(data_dir() / os.path.expanduser(pattern)) if is_local(pattern) else pattern


def _expand_braces(pattern: str, owner: str) -> list[str]:
    match = _RANGE.search(pattern)
    if not match:
        return [pattern]
    if len(_RANGE.findall(pattern)) > MOST_RANGES:
        raise UserError(f"{owner} has more than {MOST_RANGES} ranges in one pattern.")
    first, last = int(match[1]), int(match[2])
    if not 0 <= last - first < MOST_SHARDS:
        raise UserError(
            f"{owner} has the range {match[0]}, which must count up, over at most {MOST_SHARDS} "
            "files."
        )
    padded = any(len(number) > 1 and number[0] == "0" for number in match.groups())
    width = max(map(len, match.groups())) if padded else 0
    rest = _expand_braces(pattern[match.end() :], owner)
    if len(rest) * (last - first + 1) > MOST_SHARDS:
        raise UserError(f"{owner} names more than {MOST_SHARDS} files in {pattern}.")
    return [
        f"{pattern[: match.start()]}{number:0{width}d}{end}"
        for number in range(first, last + 1)
        for end in rest
    ]


def _matches(path: str, owner: str, folders: bool) -> list[str]:
    local = is_local(path)
    if local and not folders and os.path.isdir(path):
        raise UserError(f"{owner} names the folder {path}; add a pattern for its files.")
    # A query of a URL has a question mark, and web servers list no files.
    if not _WILD.search(path) or path.startswith("http") or (local and os.path.exists(path)):
        return [path.rstrip("/") if folders else path]
    if local:
        is_shard = os.path.isdir if folders else os.path.isfile
        found = [name for name in glob.glob(path, recursive=True) if is_shard(name)]
    else:
        found = remote_glob(path, folders)
    found = sorted(name for name in found if not name.endswith(INDEX_SUFFIX))
    if not found:
        raise UserError(f"{owner} has no files: nothing is found at {path}.")
    _check_complete(found, owner)
    return found


def _check_complete(found: Sequence[str], owner: str) -> None:
    matches = [_NUMBERED.fullmatch(name) for name in found]
    series = {(match[1], match[3], match[4]) for match in matches if match}
    for start, count, end in series:
        numbers = {int(m[2]) for m in matches if m and (m[1], m[3], m[4]) == (start, count, end)}
        if int(count) != len(numbers):
            raise UserError(
                f"{owner} should have {int(count)} files like {start}-*-of-{count}{end} and has "
                f"{len(numbers)}; bring the others, or name fewer on purpose by a range such as "
                "{00000..00003}."
            )
