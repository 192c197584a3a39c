"""The ledger of records that could not be used: counted by source and cause, and named."""

import collections
import sys
import threading

from simvlm_jax.errors import UserError

NAMED = 1000  # at most so many entries are kept by name; all are counted
TOLD = 10  # at most so many are told on stderr


class FailureLedger:
    """Counts failures and refuses to go on when they are too many; safe between threads."""

    def __init__(self, largest_share: float = 0.01, always_allowed: int = 10):
        """Makes an empty ledger.

        Args:
          largest_share: of the examples read so far, the most that may fail.
          always_allowed: so many failures never stop anything, however few examples were read.
        """
        self._largest_share = largest_share
        self._always_allowed = always_allowed
        self._lock = threading.Lock()
        self._counts: collections.Counter[tuple[str, str]] = collections.Counter()
        self.entries: list[tuple[str, int, str]] = []

    def record(self, source: str, example_id: int, cause: str) -> None:
        """Notes that an example of `source` could not be used, and tells of the first ones."""
        entry = (source, example_id, cause)
        with self._lock:
            self._counts[source, cause] += 1
            if len(self.entries) >= NAMED or entry in self.entries[:TOLD]:
                return
            self.entries.append(entry)
            told = len(self.entries)
        if told <= TOLD:
            more = "; of further ones nothing is told" if told == TOLD else ""
            sentence = f"Example {example_id} of {source} counts nothing: {cause.rstrip('.')}"
            print(f"{sentence}{more}.", file=sys.stderr)

    @property
    def counts(self) -> dict[tuple[str, str], int]:
        """Number of failures by (source, cause)."""
        with self._lock:
            return dict(self._counts)

    def check(self, examples_read: int) -> None:
        """Stops the run where too much of the data cannot be used.

        Args:
          examples_read: how many examples were read while the ledger was kept.

        Raises:
          UserError: more failures than allowed.
        """
        failures = sum(self.counts.values())
        if failures > max(self._always_allowed, self._largest_share * examples_read):
            source, example_id, cause = self.entries[-1]
            raise UserError(
                f"{failures} of about {examples_read} examples could not be used, the last one "
                f"example {example_id} of {source} ({cause.rstrip('.')}); mend the data or raise "
                f"largest_share above {self._largest_share}."
            )
