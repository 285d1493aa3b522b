"""Maximum margin of a linear classifier on digits 3 and 8: gradients until a relative gap of 1 %.

Ours is dual acceleration (Ji, Srebro & Telgarsky 2021). The peer is gradient descent on the
exponential loss with the step divided by the loss, eta = 1 in the scale of points of norm at most
1, the step that the theory of both takes. Both start from w = 0.
"""

from __future__ import annotations

from benchmarks.comparison import Comparison
from companion import data
from companion.dynamics import linear_solvers, margin

GAP = 0.01


def run() -> dict[str, Comparison]:
    """Count the gradients of both."""
    x, y = data.digits(classes=(3, 8))
    best = margin.max_margin(x, y).margin
    goal = (1 - GAP) * best
    ours, seconds = linear_solvers.dual_acceleration(x, y, stop_at=goal).cost(best, GAP)
    peer = linear_solvers.normalized_descent(x, y, stop_at=goal, max_evaluations=1_000_000)
    theirs, peer_seconds = peer.cost(best, GAP)
    note = f"from w = 0 to a gap of 1 %; ours in {seconds:.3f} s, peer in {peer_seconds:.2f} s"
    return {
        "dual_acceleration": Comparison.of_costs(
            ours, theirs, unit="gradient evaluations", bar=50, note=note
        )
    }
