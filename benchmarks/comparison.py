"""The record of one comparison."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Comparison:
    """Ours against a peer's cost in the same process: ratio > 1 means that ours is better.

    ``bar`` is the ratio the project asks for, ``note`` says what was measured, and how.
    """

    ours: float
    peer: float
    ratio: float
    unit: str
    bar: float
    note: str

    @classmethod
    def of_costs(cls, ours: float, peer: float, *, unit: str, bar: float, note: str) -> Comparison:
        """Compare two costs, the smaller the better."""
        return cls(ours, peer, peer / ours, unit, bar, note)

    def __str__(self) -> str:
        met = "meets" if self.ratio >= self.bar else "BELOW"
        return (
            f"ours {self.ours:<10.4g} peer {self.peer:<10.4g} {self.unit:<22} "
            f"ratio {self.ratio:<9.4g} {met} {self.bar:g}"
        )
