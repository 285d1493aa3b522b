"""Graders of the chapter on minimum norm and stability."""

from __future__ import annotations

from typing import Any

import numpy as np

from companion.exercises._grading import BY_HAND, Grader, Wrong, call, close, numbers, one_number


def _fit(X: np.ndarray, y: np.ndarray, u: np.ndarray) -> np.ndarray:  # noqa: N803
    """The least squares solution nearest to u."""
    return u + np.linalg.lstsq(X, y - X @ u, rcond=None)[0]


def _refits(X: np.ndarray, y: np.ndarray, u: np.ndarray) -> np.ndarray:  # noqa: N803
    """Target minus prediction of each sample, for the fit to all others."""
    others = [np.arange(len(X)) != n for n in range(len(X))]
    return np.array([y[n] - X[n] @ _fit(X[o], y[o], u) for n, o in enumerate(others)])


def _minimum_norm_1(answer: Any) -> str:
    x, y, u = np.array([1.0, 2.0, 2.0]), 10.0, np.array([1.0, 0.0, 0.0])
    w = numbers(answer, (3,), "three numbers, one per weight")
    if close(w, _fit(x[None], np.array([y]), u), rel=0, abs_=BY_HAND):
        return "It meets the sample, and differs from u by a multiple of it."
    if close(w, x * y / (x @ x), rel=0, abs_=BY_HAND):
        raise Wrong("This is the interpolant nearest to the origin, not to u.")
    if close(w, u + x * y / (x @ x), rel=0, abs_=BY_HAND):
        raise Wrong("It overshoots: u predicts something already; only what is missing is added.")
    if abs(x @ w - y) < BY_HAND * np.linalg.norm(x):
        raise Wrong("It meets the sample, but is not the nearest: u plus a multiple of x_1 is.")
    if close(np.cross(w - u, x), 0, rel=0, abs_=10 * BY_HAND):
        raise Wrong("Right direction from u, wrong length: it does not meet the sample.")
    raise Wrong("It does not meet the sample.")


def _minimum_norm_2(answer: Any) -> str:
    X, y = np.array([[1.0, 0.0], [1.0, 1.0]]), np.array([1.0, 3.0])  # noqa: N806
    target = _refits(X, y, np.zeros(2))
    e = numbers(answer, (2,), "two numbers, one per sample")
    if close(e, target, rel=0, abs_=BY_HAND):
        return "Both agree with the fits to the other sample."
    dual = np.linalg.solve(X @ X.T, y)
    mistakes = (
        (-target, "Wrong sign: it is target minus prediction."),
        (y - target, "These are the predictions: subtract them from the targets."),
        (target**2, "These are the squares of the misses."),
        (target[::-1], "The two are in the wrong order."),
        (dual, "These are the dual variables: the division by the diagonal is missing."),
        (np.zeros(2), "These are the residuals of the fit to both samples, not left out."),
    )
    for mistaken, why in mistakes:
        if close(e, mistaken, rel=0, abs_=BY_HAND):
            raise Wrong(why)
    if (abs(e - target) < BY_HAND).any():
        raise Wrong("One of the two is right. The fit to one sample is a multiple of that sample.")
    raise Wrong("Neither is right. The fit to one sample is a multiple of that sample.")


def _minimum_norm_3(answer: Any) -> str:
    # |w* - c w*|^2 <= |w*|^2: the larger root of c^2 - 2 c
    target = float(np.roots([1.0, -2.0, 0.0]).max())
    return one_number(
        answer,
        target,
        right="Beyond it u lies outside the ball about w* that passes through the origin.",
        mistakes={
            1.0: "There the expected error is smallest; it may rise again up to a point.",
            0.0: "That is minimum norm itself, at the other end of the interval.",
            0.5: "Compare squared distances of u and of the origin from w*.",
            2**0.5: "Compare the distances from w*, not the norms of u.",
        },
        otherwise="The expected error depends on the distance of u from w*.",
    )


def _minimum_norm_4(answer: Any) -> str:
    rng = np.random.default_rng(4)
    for N, D in ((9, 4), (6, 6), (5, 8), (7, 30)):  # noqa: N806
        X, y = rng.normal(size=(N, D)), rng.normal(size=N)  # noqa: N806
        found = call(answer, X.copy(), y.copy(), name="loo")
        where = "below N" if D < N else "at N" if D == N else "above N"
        with np.errstate(invalid="ignore"):
            try:
                e = numbers(found, (N,), f"an array of shape (N,), for D {where}")
            except Wrong as wrong:
                if str(wrong).startswith("Not finite"):
                    raise Wrong(f"Not finite for D {where}: 0 / 0 of the hat matrix?") from None
                raise
        right = _refits(X, y, np.zeros(D))
        if not close(e, right, rel=1e-6, abs_=1e-8):
            raise Wrong(_explain(X, y, e, right, where))
    return "It agrees with refits below, at and above N."


def _explain(X: np.ndarray, y: np.ndarray, e: np.ndarray, right: np.ndarray, where: str) -> str:  # noqa: N803
    residual = y - X @ _fit(X, y, np.zeros(X.shape[1]))
    readings = (
        (-right, "Wrong sign: target minus prediction."),
        (y - right, "These are the predictions, not the misses."),
        (right**2, "These are squares: return the misses themselves."),
        (residual, "These are the residuals of the fit to all samples."),
    )
    for reading, why in readings:
        if close(e, reading, rel=1e-6, abs_=1e-8):
            return f"{why[:-1]} (D {where})."
    if where != "below N":
        return f"Right below N, wrong for D {where}: the hat matrix form is 0 / 0 there."
    return f"It differs from refits for D {where}, where K has no inverse."


def _minimum_norm_5(answer: Any) -> str:
    X, y = np.array([[1.0, 0.0, 1.0], [0.0, 1.0, 1.0]]), np.array([2.0, 1.0])  # noqa: N806
    u = numbers(answer, (3,), "three numbers, the entries of u")
    shortest, chosen = _fit(X, y, np.zeros(3)), _fit(X, y, u)
    base, errors = (np.mean(_refits(X, y, v) ** 2) for v in (np.zeros(3), u))
    longer = np.linalg.norm(chosen) > np.linalg.norm(shortest) * (1 + 1e-9)
    better = errors < base * (1 - 1e-9)
    if longer and better:
        return "Longer, and more stable on these samples."
    if better:
        raise Wrong("More stable, but of minimum norm: add something from the null space of X.")
    if longer:
        raise Wrong("Longer, but not more stable: the misses are e_n - b_n . u; make them smaller.")
    raise Wrong("Neither longer nor more stable: this u changes nothing for the better.")


GRADERS: dict[str, Grader] = {
    "1": _minimum_norm_1,
    "2": _minimum_norm_2,
    "3": _minimum_norm_3,
    "4": _minimum_norm_4,
    "5": _minimum_norm_5,
}
