"""Which checkpoints of a run stay: rules, and how Orbax is told of them."""

import dataclasses
from collections.abc import Mapping

from orbax.checkpoint import checkpoint_managers as managers

from simvlm_jax.errors import UserError
from simvlm_jax.training import guards


@dataclasses.dataclass(frozen=True)
class KeepRules:
    """A checkpoint stays as long as one of these asks for it.

    Attributes:
        newest: How many of the newest stay.
        every_steps: Those of the multiples of so many steps stay for good.
        every_hours: For good stays the first, and then each that is so much younger than the last
            one that does.
        best: A metric of the reports, "loss" or "accuracy"; the checkpoints where it was best stay.
        best_count: How many of them.
        best_mode: "min" or "max".
    """

    newest: int = 3
    every_steps: int | None = None
    every_hours: float | None = None
    best: str | None = None
    best_count: int = 1
    best_mode: str = "min"

    def __post_init__(self) -> None:
        """Looks at the values.

        Raises:
            UserError: If one is out of range.
        """
        for name in ("newest", "every_steps", "best_count"):
            value = getattr(self, name)
            whole = isinstance(value, int) and value >= 1
            if not whole and not (name == "every_steps" and value is None):
                raise _refused(name, value, "a whole number above 0")
        if self.every_hours is not None:
            guards.require_amount("KeepRules.every_hours", self.every_hours)
        if self.best_mode not in ("min", "max"):
            raise _refused("best_mode", self.best_mode, "'min' or 'max'")

    def options(self) -> dict:
        """What Orbax's `CheckpointManagerOptions` has to be given."""
        policies: list = [managers.LatestN(self.newest)]
        if self.every_steps:
            policies.append(managers.EveryNSteps(self.every_steps))
        if self.every_hours:
            policies.append(managers.EveryNSeconds(round(3600 * self.every_hours)))
        options = {}
        if self.best:
            policies.append(
                managers.BestN(
                    get_metric_fn=self._value,
                    reverse=self.best_mode == "min",
                    n=self.best_count,
                    # Else those from before this rule was set would all stay.
                    keep_checkpoints_without_metrics=False,
                )
            )
            options["best_fn"] = self._value  # without it Orbax would not write the metrics
        return options | {"preservation_policy": managers.AnyPreservationPolicy(policies)}

    def require_metric(self, metrics: Mapping[str, float]) -> None:
        """Checks that the metric of the rule is there.

        Raises:
            UserError: If not.
        """
        if self.best and self.best not in metrics:
            raise UserError(
                f"KeepRules.best={self.best!r} is no metric of this run: take one of "
                f"{', '.join(sorted(metrics))}."
            )

    def _value(self, metrics: Mapping[str, float]) -> float:
        worst = float("inf" if self.best_mode == "min" else "-inf")
        return metrics.get(self.best, worst)  # of a checkpoint from before the rule was changed


THREE_NEWEST = KeepRules()


def _refused(name: str, value: object, wanted: str) -> UserError:
    return UserError(f"KeepRules.{name}={value!r} is not {wanted}: set one.")
