"""The ledger of records that could not be used: counted by source and cause, and named.

With a folder it writes `ledger.jsonl` there (`ledger-00001-of-00004.jsonl` in process 1 of 4): one
line for each such record, {"step", "source", "shard", "key", "cause"}, the first time it is met.
"""

import collections
import dataclasses
import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from etils import epath

from simvlm_jax.errors import UserError, writing
from simvlm_jax.json_files import parse_object

NAMED = 100_000  # at most so many records are named; all are counted
LARGEST = 256 << 20  # bytes of a ledger
TOLD = 10  # at most so many are told on stderr


@dataclasses.dataclass(frozen=True)
class Failure:
    """A record that could not be used.

    Attributes:
      source: the task that wanted it.
      shard: the file that holds it.
      key: its name there.
      cause: why, in the same words for all records of one trouble, without a full stop.
    """

    source: str
    shard: str
    key: str
    cause: str


def _failure(line: bytes, path: epath.Path) -> Failure:
    entry = parse_object(line, f"A line of {path}")
    try:
        failure = Failure(**{name: value for name, value in entry.items() if name != "step"})
        if not all(isinstance(value, str) for value in dataclasses.astuple(failure)):
            raise TypeError
    except TypeError:
        raise UserError(f"A line of {path} names no record: move the file away.") from None
    return failure


class FailureLedger:
    """Notes failures step by step and refuses to go on when they are too many."""

    def __init__(self, largest_share: float = 0.01, window: int = 10_000, always_allowed: int = 10):
        """Makes an empty ledger.

        Args:
          largest_share: of the newest examples, the most that may fail.
          window: how many examples those are, at least; whole steps are counted.
          always_allowed: so many failures in a window never stop anything.
        """
        self._largest_share, self._window = largest_share, window
        self._always_allowed = always_allowed
        self._steps: collections.deque[tuple[int, int]] = collections.deque()  # examples, failures
        self._examples = self._failures = 0  # in the window
        self._named: set[Failure] = set()
        self._path: epath.Path | None = None
        self.counts: collections.Counter[tuple[str, str]] = collections.Counter()

    def open(self, folder: str | Path, process_index: int = 0, process_count: int = 1) -> None:
        """Names records in a file of a run's folder from now on, none twice.

        Args:
          folder: made if it is not there.
          process_index: this process.
          process_count: how many there are; each writes a file of its own.
        """
        part = f"-{process_index:05d}-of-{process_count:05d}" if process_count > 1 else ""
        self._path = epath.Path(folder) / f"ledger{part}.jsonl"  # T5X's folder may be in a bucket
        if self._path.exists():
            if self._path.stat().length > LARGEST:
                raise UserError(
                    f"{self._path} has {self._path.stat().length} bytes, and {LARGEST} are the "
                    "most that a ledger can have: move it away."
                )
            content = self._path.read_bytes()
            whole = content[: content.rfind(b"\n") + 1]  # a kill may have cut the last line
            if whole != content:
                with writing(self._path):
                    self._path.write_bytes(whole)
            self._named = {_failure(line, self._path) for line in whole.split(b"\n")[:-1]}

    @property
    def named(self) -> frozenset[Failure]:
        """The records that were named so far, up to a limit."""
        return frozenset(self._named)

    def note(self, step: int, examples: int, failures: Sequence[Failure]) -> None:
        """Notes one step's examples.

        Args:
          step: which.
          examples: how many were read for it.
          failures: those that could not be used.

        Raises:
          UserError: too many of the newest ones could not be used.
        """
        for failure in failures:
            # Without their numbers ("70000 x 9 pixels") causes stay few.
            self.counts[failure.source, re.sub(r"\d+", "N", failure.cause)] += 1
            self._name(step, failure)
        self._steps.append((examples, len(failures)))
        self._examples += examples
        self._failures += len(failures)
        while self._examples - self._steps[0][0] >= self._window:
            left = self._steps.popleft()
            self._examples -= left[0]
            self._failures -= left[1]
        if failures and self._failures > max(
            self._always_allowed, self._largest_share * self._examples
        ):
            last = failures[-1]
            raise UserError(
                f"{self._failures} of the newest {self._examples} examples could not be used, the "
                f"last one record {last.key} of {last.shard} in {last.source} ({last.cause}); "
                f"mend the data or set UNUSABLE_SHARE above {self._largest_share}."
            )

    def _name(self, step: int, failure: Failure) -> None:
        if failure in self._named or len(self._named) >= NAMED:
            return
        self._named.add(failure)
        if self._path:
            with writing(self._path):
                self._path.parent.mkdir(parents=True, exist_ok=True)
                with self._path.open("a") as file:
                    entry = {"step": step, **dataclasses.asdict(failure)}
                    file.write(json.dumps(entry) + "\n")
        if len(self._named) <= TOLD:
            more = "; of further ones nothing is told" if len(self._named) == TOLD else ""
            print(
                f"Record {failure.key} of {failure.shard} ({failure.source}) counts nothing: "
                f"{failure.cause}{more}.",
                file=sys.stderr,
            )
