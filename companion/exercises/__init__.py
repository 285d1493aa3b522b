"""Answer checkers for the book's exercises: right or wrong, and why, never the answer.

    exercises.check("margin.1", [0.5, 0.5, 0.0])

Numbers may be Python's, NumPy's or torch's. A grader computes the answer from the exercise's data
when it is asked; what it says about a wrong answer names the kind of mistake, without numbers.
Each chapter has a module of graders under its own name.
"""

from __future__ import annotations

import html
import importlib
from dataclasses import dataclass
from typing import Any

from companion import _notebook
from companion.exercises._grading import Grader, Wrong

__all__ = ["CHAPTERS", "Verdict", "check"]

CHAPTERS = (
    *("shallow_and_deep", "counting", "building", "relu", "locality"),
    *("homogeneity", "constrained", "balance", "norm_control", "margin"),
    *("rates", "normalization", "speed", "theorem_4"),
    *("stationary", "bezout", "degenerate", "langevin", "spectrum"),
    *("complexity", "figure_2", "ranking", "minimum_norm", "width"),
)


@dataclass(frozen=True)
class Verdict:
    """Whether an answer is right, and the reason if it is not."""

    correct: bool
    reason: str

    def _ipython_display_(self) -> None:
        """Nothing: :func:`check` has shown it already."""


def check(exercise_id: str, answer: Any) -> Verdict:
    """Tell whether an answer is right and, if not, what kind of mistake it looks like.

    In IPython it shows one line; elsewhere it only returns the verdict.

    Args:
        exercise_id: Chapter and number, as printed above the exercise.
        answer: What the exercise asks for: numbers, or a function.

    Returns:
        The verdict. A wrong type or shape is a wrong answer, not an error.

    Raises:
        ValueError: for an id that is no exercise; the message lists those there are.

    >>> check("margin.1", [1.0, 0.0]).reason
    'Wrong shape: give 3 numbers, one weight per point.'
    """
    grader = _grader(exercise_id)
    try:
        verdict = Verdict(True, grader(answer))
    except Wrong as wrong:
        verdict = Verdict(False, str(wrong))
    _notebook.show(_bundle(exercise_id, verdict))
    return verdict


def _grader(exercise_id: str) -> Grader:
    """The grader of that id; chapters are imported when they are asked for."""
    chapter, _, number = str(exercise_id).partition(".")
    if chapter not in CHAPTERS:
        known = ", ".join(f"'{name}.1'" for name in CHAPTERS)
        raise ValueError(
            f"exercise_id must name a chapter and a number, such as {known}, got {exercise_id!r}."
        )
    graders = importlib.import_module(f"{__name__}.{chapter}").GRADERS
    if number not in graders:
        known = ", ".join(f"'{chapter}.{n}'" for n in graders)
        raise ValueError(f"exercise_id must be one of {known}, got {exercise_id!r}.")
    return graders[number]


def _bundle(exercise_id: str, verdict: Verdict) -> dict[str, str]:
    mark, word = ("✓", "right") if verdict.correct else ("✗", "not yet")
    return {
        "text/plain": f"{mark} {exercise_id}: {word}. {verdict.reason}",
        "text/html": (
            f'<p class="exercise-check"><span aria-hidden="true">{mark}</span> '
            f"<code>{html.escape(exercise_id)}</code> <strong>{word}.</strong> "
            f"{html.escape(verdict.reason)}</p>"
        ),
    }
