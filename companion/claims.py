"""What the paper and its slides claim, and what the book measured.

``claims.toml`` holds every claim under an id that never changes (``lemma-3``, ``theorem-4.6``).
:func:`check` compares one measured number with one bound, raises when the bound is violated, and
leaves a machine-readable record in the executed notebook, from which the concordance is made::

    claims.check("theorem-2", "units", net.num_units, equals=comb(4 + 3, 3))

``python -m companion.claims [--part P] [--book DIR]`` counts what is still open.
"""

from __future__ import annotations

import argparse
import ast
import difflib
import functools
import hashlib
import html
import json
import math
import os
import re
import sys
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from decimal import Decimal
from numbers import Integral, Rational
from pathlib import Path
from typing import Any, NamedTuple

from companion import _notebook

__all__ = [
    "MIME",
    "PARTS",
    "VERDICTS",
    "Bound",
    "Claim",
    "ClaimError",
    "Record",
    "Table",
    "check",
    "get",
    "load",
    "prose_as_html",
    "records_from_notebook",
    "table",
]

PARTS = ("approximation", "dynamics", "landscape", "generalization")
VERDICTS = ("holds", "holds with a correction", "needs an assumption", "fails as stated")
MIME = "application/vnd.companion.claim+json"

SOURCE = Path(__file__).with_name("claims.toml")
_ID = re.compile(r"[a-z0-9]+(?:[-.][a-z0-9]+)*")
_MAY_BE_EMPTY = ("verdict", "evidence")


class ClaimError(AssertionError):
    """A measured value violates the bound that the book states for a claim."""


@dataclass(frozen=True)
class Claim:
    """One claim, in the book's words.

    Attributes:
        id: Stable name, also the anchor of the claim on the page.
        part: One of :data:`PARTS`.
        source: Where the claim is made.
        statement: What is claimed.
        corrected: What holds; the same in other words where the claim holds.
        verdict: One of :data:`VERDICTS`, or empty until its chapter is written.
        evidence: Citation and reason; may be empty while the verdict is.
    """

    id: str
    part: str
    source: str
    statement: str
    corrected: str
    verdict: str
    evidence: str


def load(path: str | Path | None = None) -> tuple[Claim, ...]:
    """Return all claims, in the order of the file.

    Args:
        path: A file in the format of ``claims.toml``; the book's own if left out.

    Raises:
        ValueError: for a duplicate id, a missing, unknown or empty field, or a part or verdict
            that does not exist; the message names the claim.

    >>> load()[0].part
    'approximation'
    """
    return tuple(_read(SOURCE if path is None else Path(path)).values())


def get(claim_id: str) -> Claim:
    """Return the claim of that id.

    Raises:
        ValueError: if there is none; the message names similar ids.

    >>> get("lemma-3").part
    'dynamics'
    """
    claims = _read(SOURCE)
    if claim_id in claims:
        return claims[claim_id]
    close = difflib.get_close_matches(str(claim_id), claims, n=3)
    hint = f" Did you mean {' or '.join(map(repr, close))}?" if close else ""
    raise ValueError(f"claim_id must be an id of claims.toml, got {claim_id!r}.{hint}")


@dataclass(frozen=True)
class Table:
    """Claims as a table: shown by Jupyter as HTML, by ``print`` as text."""

    claims: tuple[Claim, ...]

    def __str__(self) -> str:
        width = max((len(claim.id) for claim in self.claims), default=0)
        return "\n".join(
            f"{claim.id:<{width}}  {claim.verdict or 'open'}: {claim.corrected}"
            for claim in self.claims
        )

    def _repr_html_(self) -> str:
        return "".join(_entry(claim) for claim in self.claims)


def _entry(claim: Claim) -> str:
    """One claim as HTML: its id and verdict, what the source says, what this book says."""
    lines = [("Source", claim.source), ("Claim", claim.statement), ("Here", claim.corrected)]
    terms = "".join(f"<dt>{head}</dt><dd>{prose_as_html(text)}</dd>" for head, text in lines)
    verdict = claim.verdict or "open"
    return (
        f'<div class="claim"><p class="claim-head"><code>{html.escape(claim.id)}</code> '
        f'<strong class="claim-verdict">{verdict}</strong></p><dl>{terms}</dl></div>'
    )


def prose_as_html(text: str) -> str:
    """A sentence as HTML: escaped, with its $...$ as MathJax reads it in raw HTML, \\( ... \\)."""
    pieces = html.escape(text, quote=False).split("$")
    return "".join(
        f'<span class="math notranslate nohighlight">\\({piece}\\)</span>' if i % 2 else piece
        for i, piece in enumerate(pieces)
    )


def table(part: str | None = None, *, ids: Iterable[str] | None = None) -> Table:
    """Return the claims of one part, those with the given ids, or all, as a table.

    Raises:
        ValueError: if the part or an id does not exist, or both are given.
    """
    if ids is not None:
        if part is not None:
            raise ValueError(f"Give part or ids, got both: part={part!r}.")
        return Table(tuple(get(claim_id) for claim_id in ids))
    if part is not None and part not in PARTS:
        raise ValueError(f"part must be one of {', '.join(PARTS)}, got {part!r}.")
    return Table(tuple(claim for claim in load() if part in (None, claim.part)))


@functools.cache
def _read(path: Path) -> Mapping[str, Claim]:
    with path.open("rb") as file:
        document = tomllib.load(file)
    unknown = document.keys() - {"claim"}
    if unknown:
        raise ValueError(f"{path.name} must hold only [[claim]] tables, got {sorted(unknown)}.")
    claims: dict[str, Claim] = {}
    for position, entry in enumerate(document.get("claim", []), start=1):
        claim = _claim(entry, position)
        if claim.id in claims:
            raise ValueError(f"Claim {claim.id!r} appears twice in {path.name}.")
        claims[claim.id] = claim
    return claims


def _claim(entry: Mapping[str, Any], position: int) -> Claim:
    """Validate one table of the file."""
    name = repr(entry["id"]) if "id" in entry else f"number {position}"
    expected = [f.name for f in fields(Claim)]
    for key in expected:
        if key not in entry:
            raise ValueError(f"Claim {name} lacks the field {key!r}.")
        if not isinstance(entry[key], str):
            raise ValueError(f"Claim {name}: {key} must be a string, got {entry[key]!r}.")
        if key not in _MAY_BE_EMPTY and not entry[key].strip():
            raise ValueError(f"Claim {name}: {key} must not be empty.")
    if extra := sorted(entry.keys() - set(expected)):
        raise ValueError(f"Claim {name} has unknown fields {extra}.")
    claim = Claim(**{key: " ".join(entry[key].split()) for key in expected})
    if not _ID.fullmatch(claim.id):
        raise ValueError(f"Claim {name}: id must be lower-case words joined by hyphens.")
    if claim.part not in PARTS:
        raise ValueError(
            f"Claim {name}: part must be one of {', '.join(PARTS)}, got {claim.part!r}."
        )
    if claim.verdict and claim.verdict not in VERDICTS:
        raise ValueError(
            f"Claim {name}: verdict must be empty or one of {', '.join(VERDICTS)}, "
            f"got {claim.verdict!r}."
        )
    if claim.verdict and not claim.evidence:
        raise ValueError(f"Claim {name}: a claim with a verdict must have evidence.")
    return claim


# --- checking ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Bound:
    """One condition on a measured value; ``kind`` is the keyword of :func:`check`."""

    kind: str
    value: int | float
    rel: float | None = None
    abs: float | None = None

    def __str__(self) -> str:
        sign = {"equals": "=", "below": "<", "above": ">", "at_most": "≤", "at_least": "≥"}
        text = f"{sign[self.kind]} {_format(self.value)}"
        within = [
            f"{_format(tolerance)} {word}"
            for tolerance, word in ((self.rel, "relative"), (self.abs, "absolute"))
            if tolerance is not None
        ]
        return text + (f" within {' or '.join(within)}" if within else "")


@dataclass(frozen=True)
class Record:
    """What one :func:`check` leaves in an executed notebook."""

    id: str
    quantity: str
    measured: int | float
    bounds: tuple[Bound, ...]
    passed: bool
    cell: int | None = field(default=None, compare=False)

    @property
    def anchor(self) -> str:
        """HTML id of the line, unique per claim and quantity.

        The quantity's lower-case words joined by hyphens; where capitals or signs were lost on the
        way ("a < b" is not "a > b"), a short hash of the quantity follows.
        """
        slug = re.sub("[^a-z0-9]+", "-", self.quantity.lower()).strip("-")
        if slug.replace("-", " ") != self.quantity:
            digest = hashlib.sha256(self.quantity.encode()).hexdigest()[:8]
            slug = f"{slug}-{digest}" if slug else digest
        return f"check-{self.id}-{slug}"

    @property
    def shown(self) -> str:
        """The measured value as pages show it."""
        return _format(self.measured)

    def __str__(self) -> str:
        bounds = " and ".join(map(str, self.bounds))
        mark = "✓" if self.passed else "✗"
        return f"{mark} {self.id} · {self.quantity}: {self.shown} (required {bounds})"

    def bundle(self) -> dict[str, Any]:
        """Return the mime bundle that Jupyter shows and the concordance reads."""
        return {"text/plain": str(self), "text/html": self._html(), MIME: self._json()}

    def _html(self) -> str:
        bounds = html.escape(" and ".join(map(str, self.bounds)))
        anchor = html.escape(self.anchor)
        return (
            f'<p class="claim-check" id="{anchor}">'
            f'<span role="img" aria-label="holds">✓</span> '
            f'<a href="#{anchor}"><code>{html.escape(self.id)}</code></a> '
            f"{html.escape(self.quantity)}: <strong>{self.shown}</strong> "
            f'<span class="claim-bound">(required {bounds})</span></p>'
        )

    def _json(self) -> dict[str, Any]:
        bounds = [
            {key: value for key, value in vars(bound).items() if value is not None}
            for bound in self.bounds
        ]
        return {
            "id": self.id,
            "quantity": self.quantity,
            "measured": self.measured,
            "bounds": bounds,
            "passed": self.passed,
        }


def check(
    claim_id: str,
    quantity: str,
    measured: Any,
    *,
    equals: Any = None,
    rel: float | None = None,
    abs: float | None = None,  # noqa: A002 (reads as in pytest.approx)
    below: Any = None,
    above: Any = None,
    at_most: Any = None,
    at_least: Any = None,
) -> None:
    """Assert that a measured value satisfies what the book claims, and put it on record.

    In IPython it shows one line and leaves a record of type :data:`MIME` among the cell's outputs;
    elsewhere it is silent.

    Args:
        claim_id: An id of ``claims.toml``.
        quantity: What was measured, in words.
        measured: A finite number: Python's, NumPy's, or a tensor with no axes.
        equals: The value itself. Integers, booleans and fractions are compared exactly; floats
            need ``rel`` or ``abs``: ``|measured - equals| <= max(rel |equals|, abs)``.
        rel: Relative tolerance of ``equals``.
        abs: Absolute tolerance of ``equals``.
        below: measured < below.
        above: measured > above.
        at_most: measured <= at_most.
        at_least: measured >= at_least.

    Raises:
        ClaimError: if the measured value violates a bound.
        ValueError: for an unknown id, a NaN or infinity, no bound, or floats without a tolerance.
        TypeError: for a value that is not one real number.

    >>> check("theorem-3", "units at n = 8, k = 2", 7 * 6, equals=42)
    >>> check("theorem-3", "units at n = 8, k = 2", 45, equals=42)
    Traceback (most recent call last):
    ...
    companion.claims.ClaimError: theorem-3: units at n = 8, k = 2 is 45, required = 42.
    """
    claim = get(claim_id)
    if not isinstance(quantity, str) or not quantity.strip():
        raise ValueError(f"quantity must say in words what was measured, got {quantity!r}.")
    value = _number("measured", measured)
    given = {
        "equals": equals, "below": below, "above": above, "at_most": at_most, "at_least": at_least
    }  # fmt: skip
    bounds = {kind: _number(kind, v) for kind, v in given.items() if v is not None}
    if not bounds:
        raise ValueError(f"A check needs a bound: give one of {', '.join(given)}.")
    tolerances = _tolerances(value, bounds, rel, abs)
    passed = all(_satisfied(kind, value, bound, tolerances) for kind, bound in bounds.items())
    record = Record(
        id=claim.id,
        quantity=" ".join(quantity.split()),
        measured=_plain(value),
        bounds=tuple(
            Bound(kind, _plain(bound), **(tolerances if kind == "equals" else {}))
            for kind, bound in bounds.items()
        ),
        passed=passed,
    )
    if not passed:
        raise ClaimError(_complaint(record, value))
    _notebook.show(record.bundle())


def _number(name: str, value: Any) -> bool | Rational | float:
    """Return a finite real number, unwrapped from NumPy and torch without importing either."""
    shape = getattr(value, "shape", ())
    if hasattr(value, "item") and callable(value.item):
        if tuple(shape) != ():
            raise TypeError(f"{name} must be one number, got shape {tuple(shape)}.")
        value = value.item()
    if isinstance(value, (bool, Rational)):
        return value
    if isinstance(value, (str, bytes, complex)):
        raise TypeError(f"{name} must be a real number, got {value!r}.")
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise TypeError(f"{name} must be a real number, got {type(value).__name__}.") from None
    if not math.isfinite(number):
        raise ValueError(f"{name} must be finite, got {number}.")
    return number


def _tolerances(
    value: Any, bounds: Mapping[str, Any], rel: Any, abs_: Any
) -> dict[str, float | None]:
    """Check that the tolerances fit the numbers that they are for."""
    given = {"rel": rel, "abs": abs_}
    numbers = {name: None if v is None else float(_number(name, v)) for name, v in given.items()}
    for name, number in numbers.items():
        if number is not None and number <= 0:
            raise ValueError(f"{name} must be greater than 0, got {number}.")
    has_tolerance = any(number is not None for number in numbers.values())
    if "equals" not in bounds:
        if has_tolerance:
            raise ValueError("rel and abs are tolerances of equals, which was not given.")
        if isinstance(value, bool):
            raise TypeError("measured is a boolean: compare it with equals=True or equals=False.")
        return numbers
    target = bounds["equals"]
    if isinstance(value, bool) != isinstance(target, bool):
        raise TypeError(f"measured and equals must both be booleans, got {value} and {target}.")
    exact = isinstance(value, Rational) and isinstance(target, Rational)
    if not exact and not has_tolerance:
        raise ValueError("equals compares floats: give a tolerance, rel or abs.")
    if target == 0 and numbers["rel"] is not None and numbers["abs"] is None:
        raise ValueError("rel has no meaning for equals=0: give abs.")
    return numbers


def _satisfied(kind: str, value: Any, bound: Any, tolerances: Mapping[str, Any]) -> bool:
    if kind == "equals":
        slack = (tolerances["rel"] or 0) * (bound if bound >= 0 else -bound)
        distance = value - bound if value >= bound else bound - value
        return bool(distance <= max(slack, tolerances["abs"] or 0))
    return {
        "below": value < bound,
        "above": value > bound,
        "at_most": value <= bound,
        "at_least": value >= bound,
    }[kind]


def _complaint(record: Record, value: Any) -> str:
    bounds = " and ".join(str(bound) for bound in record.bounds)
    shown = _format(record.measured)
    if any(_format(b.value) == shown and b.value != value for b in record.bounds):
        shown = str(value)  # six digits would hide the difference
    return f"{record.id}: {record.quantity} is {shown}, required {bounds}."


def _plain(value: Any) -> int | float:
    """The value as JSON knows it."""
    if isinstance(value, bool):
        return value
    return int(value) if isinstance(value, Integral) else float(value)


def _format(value: int | float) -> str:
    """Six significant digits; integers in full up to twelve.

    >>> _format(3.2e-07), _format(12870), _format(True), _format(0.1 + 0.2)
    ('3.2e-7', '12870', 'yes', '0.3')
    """
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int) and abs(value) < 10**12:
        return str(value)
    number = Decimal(value) if isinstance(value, int) else value  # an int may exceed a float
    return re.sub(r"e([+-])0*(\d)", lambda m: f"e{m[1].strip('+')}{m[2]}", f"{number:.6g}")


# --- reading notebooks ---------------------------------------------------------------------------


def records_from_notebook(notebook: str | Path | Mapping[str, Any]) -> tuple[Record, ...]:
    """Return the records that :func:`check` left in an executed notebook, in order.

    Args:
        notebook: Its file, or what nbformat reads from it.

    Raises:
        ValueError: if the file is not a notebook or a record in it is malformed.
    """
    here = isinstance(notebook, Mapping)
    cells, name = (notebook["cells"], "notebook") if here else (_cells(Path(notebook)), notebook)
    return tuple(
        _record(output["data"][MIME], name, index)
        for index, cell in enumerate(cells)
        for output in cell.get("outputs", [])
        if MIME in output.get("data", {})
    )


def _record(data: Any, name: str | Path, cell: int) -> Record:
    try:
        return Record(
            id=data["id"],
            quantity=data["quantity"],
            measured=data["measured"],
            bounds=tuple(Bound(**bound) for bound in data["bounds"]),
            passed=data["passed"],
            cell=cell,
        )
    except (KeyError, TypeError) as error:
        raise ValueError(f"{name}, cell {cell}: malformed claim record ({error!r}).") from None


class Use(NamedTuple):
    """A call of ``claims.check`` in the source of a notebook; ``id`` is None if not literal."""

    id: str | None
    place: str


def _cells(path: Path) -> list[dict[str, Any]]:
    try:
        return list(json.loads(path.read_text(encoding="utf-8"))["cells"])
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError):
        raise ValueError(f"{path} must be a Jupyter notebook.") from None


def _uses(book: Path) -> Iterator[Use]:
    """Find every call of ``claims.check`` in the code cells of the notebooks below ``book``."""
    for path in sorted(book.rglob("*.ipynb")):
        if ".ipynb_checkpoints" in path.parts:
            continue
        for index, cell in enumerate(_cells(path)):
            if cell.get("cell_type") == "code":
                place = f"{path.relative_to(book)}, cell {index}"
                yield from (Use(use, place) for use in _ids_checked(_source(cell), place))


def _source(cell: Mapping[str, Any]) -> str:
    lines = cell["source"]
    return lines if isinstance(lines, str) else "".join(lines)


def _tree(source: str) -> ast.AST:
    """Parse a cell; where it is not Python as it stands, IPython's magics become ``pass``."""
    if source.lstrip().startswith("%%"):
        return ast.Module([], [])
    try:
        return ast.parse(source)
    except SyntaxError:
        return ast.parse(re.sub(r"^([ \t]*)[%!?].*$", r"\1pass", source, flags=re.MULTILINE))


def _ids_checked(source: str, place: str) -> Iterator[str | None]:
    try:
        tree = _tree(source)
    except SyntaxError as error:
        raise ValueError(f"{place} must be Python: {error.msg}.") from None
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
            continue
        owner = node.func.value
        name = getattr(owner, "id", getattr(owner, "attr", None))
        if node.func.attr != "check" or name != "claims":
            continue
        argument = next(
            (keyword.value for keyword in node.keywords if keyword.arg == "claim_id"),
            node.args[0] if node.args else None,
        )
        literal = isinstance(argument, ast.Constant) and isinstance(argument.value, str)
        yield argument.value if literal else None


# --- command line --------------------------------------------------------------------------------


def main(arguments: Sequence[str] | None = None) -> int:
    """Print how far the book has come with its claims; return 1 if anything is open."""
    parser = argparse.ArgumentParser(
        prog="python -m companion.claims",
        description="Count the claims that have a verdict and a check in a notebook.",
    )
    parser.add_argument("--part", choices=PARTS, help="look at this part only")
    parser.add_argument("--book", type=Path, default=Path("book"), help="folder of the notebooks")
    options = parser.parse_args(arguments)
    if not options.book.is_dir():
        print(f"No folder {options.book}: name the notebooks' folder by --book.", file=sys.stderr)
        return 2
    try:
        claims, uses = _read(SOURCE), list(_uses(options.book))
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    parts = [options.part] if options.part else PARTS
    checked = {use.id for use in uses}
    lines, complete = _report(parts, claims.values(), checked)
    wrong = [
        f"{use.place}: " + ("the id is no string literal" if use.id is None else f"no {use.id!r}")
        for use in uses
        if use.id not in claims
    ]
    print("\n".join(lines + (["", "Checks of unknown claims:", *wrong] if wrong else [])))
    return 0 if complete and not wrong else 1


def _report(
    parts: Iterable[str], claims: Iterable[Claim], checked: set[str | None]
) -> tuple[list[str], bool]:
    """The table of counts and the lists of holes; whether there are none."""
    claims = list(claims)
    lines = [f"{'part':<16}{'claims':>8}{'verdict':>9}{'check':>7}"]
    holes: dict[str, list[str]] = {}
    for part in parts:
        here = [claim for claim in claims if claim.part == part]
        no_verdict = [claim.id for claim in here if not claim.verdict]
        no_check = [claim.id for claim in here if claim.id not in checked]
        lines.append(
            f"{part:<16}{len(here):>8}{len(here) - len(no_verdict):>9}"
            f"{len(here) - len(no_check):>7}"
        )
        holes |= {f"{part}, no verdict": no_verdict, f"{part}, no check": no_check}
    for title, ids in holes.items():
        if ids:
            lines += ["", f"{title} ({len(ids)}):", *(f"  {claim_id}" for claim_id in ids)]
    return lines, not any(holes.values())


def _run() -> int:
    """The command: :func:`main`, ending quietly with 1 if its reader (``| head``) has left."""
    try:
        code = main()
        sys.stdout.flush()
    except BrokenPipeError:
        # What is still buffered must not raise again when Python flushes it at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return code


if __name__ == "__main__":
    raise SystemExit(_run())
