"""The list of claims is complete and well formed; checks hold, fail and are put on record."""

from __future__ import annotations

import hashlib
import json
import math
import re
import subprocess
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import mpmath
import nbformat
import numpy as np
import pytest
import sympy
import torch
from hypothesis import given
from hypothesis import strategies as st

from companion import claims

ENTRY = {
    "id": "lemma-9",
    "part": "dynamics",
    "source": "a paper",
    "statement": "One is two.",
    "corrected": "One is one.",
    "verdict": "",
    "evidence": "",
}
CHAPTER = (
    "eq-8", "eq-9", "eq-10", "eq-11", "eq-12", "lemma-3", "lemma-4", "fig-3", "theorem-4.7",
    "smoothed-margin", "linear-max-margin",
)  # fmt: skip


# --- the list ------------------------------------------------------------------------------------


def toml(*entries: dict[str, Any]) -> str:
    lines = []
    for entry in entries:
        lines.append("[[claim]]")
        lines += [f"{key} = {json.dumps(value)}" for key, value in entry.items()]
    return "\n".join(lines)


def load(tmp_path: Path, text: str) -> tuple[claims.Claim, ...]:
    path = tmp_path / "claims.toml"
    path.write_text(text)
    return claims.load(path)


def test_everything_numbered_in_the_paper_is_listed() -> None:
    expected = {f"eq-{i}" for i in range(1, 16)} | {f"lemma-{i}" for i in range(1, 6)}
    expected |= {f"theorem-{i}" for i in range(1, 5)} | {f"theorem-4.{i}" for i in range(1, 8)}
    expected |= {f"fig-{i}" for i in range(1, 4)}
    assert expected <= {claim.id for claim in claims.load()}


def test_slides_and_every_part_are_there() -> None:
    found = claims.load()
    assert {claim.part for claim in found} == set(claims.PARTS)
    assert sum("slides" in claim.source for claim in found) >= 20


def test_the_margin_chapter_has_its_verdicts() -> None:
    for claim_id in CHAPTER:
        claim = claims.get(claim_id)
        assert claim.verdict in claims.VERDICTS and claim.evidence


@pytest.mark.parametrize("claim", claims.load(), ids=lambda claim: claim.id)
def test_claim_reads_as_sentences(claim: claims.Claim) -> None:
    for text in (claim.statement, claim.corrected):
        assert text.endswith((".", "$."))
        assert text[0].isupper() or text[0] == "$" or text.startswith("\\")
        assert text.count("$") % 2 == 0
        assert text.count("{") == text.count("}")


def test_list_is_loaded_once() -> None:
    assert claims.get("lemma-3") is claims.get("lemma-3")
    with pytest.raises(AttributeError):
        claims.get("lemma-3").verdict = "holds"


def test_unknown_claim_suggests_similar_ones() -> None:
    with pytest.raises(ValueError, match=r"got 'lema-3'\. Did you mean 'lemma-3'"):
        claims.get("lema-3")
    with pytest.raises(ValueError, match=r"got 'zzzzzz'\.$"):
        claims.get("zzzzzz")


def test_well_formed_file(tmp_path: Path) -> None:
    (claim,) = load(tmp_path, toml(ENTRY | {"statement": "One\n  is two."}))
    assert claim == claims.Claim(**ENTRY)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"part": "drama"}, "Claim 'lemma-9': part must be one of approximation, .*got 'drama'"),
        ({"verdict": "true"}, "Claim 'lemma-9': verdict must be empty or one of holds, .*'true'"),
        ({"verdict": "holds"}, "Claim 'lemma-9': a claim with a verdict must have evidence"),
        ({"statement": " "}, "Claim 'lemma-9': statement must not be empty"),
        ({"source": 3}, "Claim 'lemma-9': source must be a string, got 3"),
        ({"note": "x"}, r"Claim 'lemma-9' has unknown fields \['note'\]"),
        ({"id": "Lemma 9"}, "Claim 'Lemma 9': id must be lower-case words"),
    ],
)
def test_malformed_entry_is_named(tmp_path: Path, change: dict[str, Any], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        load(tmp_path, toml(ENTRY | change))


@pytest.mark.parametrize("field", ENTRY)
def test_missing_field_is_named(tmp_path: Path, field: str) -> None:
    entry = {key: value for key, value in ENTRY.items() if key != field}
    name = "number 1" if field == "id" else "'lemma-9'"
    with pytest.raises(ValueError, match=f"Claim {name} lacks the field '{field}'"):
        load(tmp_path, toml(entry))


def test_duplicates_and_other_tables_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Claim 'lemma-9' appears twice"):
        load(tmp_path, toml(ENTRY, ENTRY))
    (tmp_path / "other").mkdir()
    with pytest.raises(ValueError, match=r"only \[\[claim\]\] tables, got \['claims'\]"):
        load(tmp_path / "other", "[[claims]]\n")


def test_table_shows_one_part() -> None:
    table = claims.table("landscape")
    assert {claim.part for claim in table.claims} == {"landscape"}
    assert len(claims.table().claims) == len(claims.load())
    assert "bezout" in str(table)
    page = table._repr_html_()
    assert page.count('class="claim"') == len(table.claims) and "$" not in page
    assert page.count(r"\(") == page.count(r"\)") > 0
    with pytest.raises(ValueError, match="part must be one of approximation, .* got 'x'"):
        claims.table("x")
    chosen = claims.table(ids=["lemma-4", "eq-8"]).claims
    assert [claim.id for claim in chosen] == ["lemma-4", "eq-8"]
    with pytest.raises(ValueError, match="claim_id must be an id of claims.toml, got 'lemma-44'"):
        claims.table(ids=["lemma-44"])
    with pytest.raises(ValueError, match="Give part or ids"):
        claims.table("landscape", ids=["eq-8"])


# --- checks --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "measured",
    [3, 3.0, Fraction(3), np.float32(3), np.int64(3), np.array(3.0), torch.tensor(3),
     torch.tensor(3.0, requires_grad=True), mpmath.mpf(3), sympy.Integer(3)],
)  # fmt: skip
def test_any_single_number_can_be_measured(measured: Any) -> None:
    claims.check("lemma-3", "three", measured, above=2, below=4.5, at_most=3, at_least=3)
    with pytest.raises(claims.ClaimError, match="lemma-3: three is 3, required < 3"):
        claims.check("lemma-3", "three", measured, below=3)


@pytest.mark.parametrize(
    ("bounds", "match"),
    [
        ({"below": 1.0}, "is 1.*required < 1"),
        ({"above": 2}, "required > 2"),
        ({"at_most": 0.5}, "required ≤ 0.5"),
        ({"at_least": 1.5}, "required ≥ 1.5"),
        ({"equals": 2, "rel": 0.1}, "required = 2 within 0.1 relative"),
        ({"equals": 0, "abs": 1e-5}, "required = 0 within 1e-5 absolute"),
        ({"above": 0, "below": 0.9}, "required < 0.9 and > 0"),
    ],
)
def test_violated_bound_names_everything(bounds: dict[str, Any], match: str) -> None:
    with pytest.raises(claims.ClaimError, match=match) as error:
        claims.check("lemma-3", "the fall", 1.0, **bounds)
    assert isinstance(error.value, AssertionError) and "lemma-3: the fall" in str(error.value)


def test_a_violation_smaller_than_the_digits_shown_is_shown_in_full() -> None:
    with pytest.raises(claims.ClaimError, match=r"is 1\.0000000000000002, required ≤ 1\."):
        claims.check("lemma-3", "ratio", 1.0 + 2**-52, at_most=1.0)


@given(st.floats(-1e100, 1e100), st.floats(-1e100, 1e100))
def test_bounds_are_the_comparisons_they_name(value: float, bound: float) -> None:
    truth = {
        "below": value < bound,
        "above": value > bound,
        "at_most": value <= bound,
        "at_least": value >= bound,
    }
    for kind, holds in truth.items():
        try:
            claims.check("lemma-3", "x", value, **{kind: bound})
            passed = True
        except claims.ClaimError:
            passed = False
        assert passed == holds


@given(st.floats(-1e6, 1e6), st.floats(1e-12, 1e-2), st.floats(-3, 3))
def test_tolerances_are_relative_to_the_stated_value(target: float, rel: float, t: float) -> None:
    if abs(abs(t) - 1) < 1e-3 or abs(target) < 1e-6:
        return
    value = target * (1 + t * rel)
    if abs(t) < 1:
        claims.check("lemma-3", "x", value, equals=target, rel=rel)
        claims.check("lemma-3", "x", value, equals=target, abs=rel * abs(target))
    else:
        with pytest.raises(claims.ClaimError):
            claims.check("lemma-3", "x", value, equals=target, rel=rel)


def test_integers_booleans_and_fractions_compare_exactly() -> None:
    huge = 10**400
    claims.check("theorem-2", "units", huge, equals=huge)
    with pytest.raises(claims.ClaimError, match=r"is 1e400, required = 1e400|is 10+1"):
        claims.check("theorem-2", "units", huge + 1, equals=huge)
    claims.check("yarotsky-square", "error", Fraction(1, 4**30), equals=Fraction(1, 4**30))
    claims.check("lemma-3", "monotone", np.True_, equals=True)
    with pytest.raises(claims.ClaimError, match="monotone is no, required = yes"):
        claims.check("lemma-3", "monotone", False, equals=True)


@pytest.mark.parametrize("measured", [math.nan, math.inf, -math.inf, torch.tensor(math.nan)])
def test_measured_must_be_finite(measured: Any) -> None:
    with pytest.raises(ValueError, match="measured must be finite, got"):
        claims.check("lemma-3", "x", measured, below=1)


@pytest.mark.parametrize("kind", ["equals", "below", "above", "at_most", "at_least", "rel", "abs"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_bounds_must_be_finite(kind: str, value: float) -> None:
    bounds = {"equals": 1.0, "rel": 0.1} | {kind: value}
    with pytest.raises(ValueError, match=f"{kind} must be finite, got {value}"):
        claims.check("lemma-3", "x", 1.0, **bounds)


@pytest.mark.parametrize(
    "measured", ["3", b"3", 1j, None, [3], np.ones(1), torch.ones(2), object(), np.complex128(1)]
)
def test_measured_must_be_one_real_number(measured: Any) -> None:
    with pytest.raises(TypeError, match="measured must be (a real|one) number, got"):
        claims.check("lemma-3", "x", measured, below=10)


@pytest.mark.parametrize(
    ("measured", "bounds", "error", "match"),
    [
        (1.0, {}, ValueError, "A check needs a bound"),
        (1.0, {"equals": 1.0}, ValueError, "equals compares floats: give a tolerance"),
        (1, {"equals": 1.0}, ValueError, "equals compares floats"),
        (1.0, {"equals": 1}, ValueError, "equals compares floats"),
        (1.0, {"below": 2, "rel": 0.1}, ValueError, "tolerances of equals, which was not given"),
        (1.0, {"rel": 0.1}, ValueError, "A check needs a bound"),
        (0.0, {"equals": 0.0, "rel": 0.1}, ValueError, "rel has no meaning for equals=0"),
        (1.0, {"equals": 1.0, "abs": 0.0}, ValueError, "abs must be greater than 0, got 0"),
        (1.0, {"equals": 1.0, "rel": -1}, ValueError, "rel must be greater than 0, got -1"),
        (True, {"equals": 1}, TypeError, "must both be booleans"),
        (1, {"equals": True}, TypeError, "must both be booleans"),
        (True, {"below": 2}, TypeError, "measured is a boolean"),
        (1.0, {"below": "2"}, TypeError, "below must be a real number, got '2'"),
        (1.0, {"below": np.ones(2)}, TypeError, r"below must be one number, got shape \(2,\)"),
    ],
)
def test_misuse_is_an_error_of_its_own(
    measured: Any, bounds: dict[str, Any], error: type[Exception], match: str
) -> None:
    with pytest.raises(error, match=match) as raised:
        claims.check("lemma-3", "x", measured, **bounds)
    assert not isinstance(raised.value, claims.ClaimError)


def test_id_and_quantity_are_checked() -> None:
    with pytest.raises(ValueError, match="Did you mean 'theorem-4.6'"):
        claims.check("theorem-46", "x", 1, equals=1)
    with pytest.raises(ValueError, match="quantity must say in words"):
        claims.check("lemma-3", " ", 1, equals=1)


def test_check_is_silent_and_returns_nothing_outside_ipython(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert claims.check("lemma-3", "x", 1, equals=1) is None
    assert capsys.readouterr() == ("", "")


def test_claims_do_not_load_torch() -> None:
    code = (
        "import sys; from companion import claims, exercises; "
        "claims.check('lemma-3', 'x', 1, equals=1); print('torch' in sys.modules)"
    )
    command = [sys.executable, "-c", code]
    assert subprocess.run(command, capture_output=True, text=True).stdout.strip() == "False"


# --- records -------------------------------------------------------------------------------------


def execute(path: Path, *cells: str) -> None:
    """Run cells in an IPython shell of their own and store what they display as outputs."""
    code = (
        "import sys\n"
        "from IPython.core.interactiveshell import InteractiveShell\n"
        "from IPython.utils.capture import capture_output\n"
        "import json\n"
        "shell = InteractiveShell.instance()\n"
        "cells = json.loads(sys.argv[1])\n"
        "out = []\n"
        "for cell in cells:\n"
        "    with capture_output() as captured:\n"
        "        shell.run_cell(cell)\n"
        "    out.append([dict(o.data) for o in captured.outputs])\n"
        "print(json.dumps(out))\n"
    )
    command = [sys.executable, "-c", code, json.dumps(cells)]
    shown = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    notebook = nbformat.v4.new_notebook()
    for cell, bundles in zip(cells, shown, strict=True):
        outputs = [nbformat.v4.new_output("display_data", data=bundle) for bundle in bundles]
        notebook.cells.append(nbformat.v4.new_code_cell(cell, outputs=outputs))
    nbformat.validate(notebook)
    nbformat.write(notebook, path)


def test_records_travel_through_a_notebook(tmp_path: Path) -> None:
    path = tmp_path / "chapter.ipynb"
    execute(
        path,
        "from companion import claims",
        "claims.check('lemma-3', 'largest fall, in a < b', 3.2e-7, below=1e-5)\n"
        "claims.check('lemma-4', 'minimum', 1.94, equals=1.94028, rel=1e-3)",
        "claims.check('theorem-2', 'units', 35, equals=35)",
    )
    fall, minimum, units = claims.records_from_notebook(path)
    assert (fall.id, fall.measured, fall.passed, fall.cell) == ("lemma-3", 3.2e-7, True, 1)
    assert fall.bounds == (claims.Bound("below", 1e-5),)
    assert minimum.bounds == (claims.Bound("equals", 1.94028, rel=1e-3),)
    assert (units.measured, units.cell) == (35, 2)

    output = nbformat.read(path, as_version=4).cells[1].outputs[0].data
    assert output["text/plain"] == "✓ lemma-3 · largest fall, in a < b: 3.2e-7 (required < 1e-5)"
    page = output["text/html"]
    assert fall.anchor.startswith("check-lemma-3-largest-fall-in-a-b-")
    assert f'<p class="claim-check" id="{fall.anchor}">' in page
    assert f'href="#{fall.anchor}"' in page
    assert "in a &lt; b" in page and "(required &lt; 1e-5)" in page and 'aria-label="holds"' in page


def test_malformed_records_and_files_are_named(tmp_path: Path) -> None:
    path = tmp_path / "chapter.ipynb"
    path.write_text("no notebook")
    with pytest.raises(ValueError, match="chapter.ipynb must be a Jupyter notebook"):
        claims.records_from_notebook(path)
    cell = {"outputs": [{"data": {claims.MIME: {"id": "lemma-3"}}}]}
    path.write_text(json.dumps({"cells": [cell]}))
    with pytest.raises(ValueError, match="chapter.ipynb, cell 0: malformed claim record"):
        claims.records_from_notebook(path)


# --- command line --------------------------------------------------------------------------------


def notebook(path: Path, *sources: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cells = [{"cell_type": "code", "source": source} for source in sources]
    cells.append({"cell_type": "markdown", "source": "claims.check('lemma-5', 'no code', 1)"})
    path.write_text(json.dumps({"cells": cells}))


@pytest.fixture
def small_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "claims.toml"
    decided = {"verdict": "holds", "evidence": "Algebra."}
    path.write_text(
        toml(
            ENTRY | {"id": "lemma-1"} | decided,
            ENTRY | {"id": "lemma-2"},
            ENTRY | {"id": "bezout", "part": "landscape"} | decided,
        )
    )
    monkeypatch.setattr(claims, "SOURCE", path)


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = claims.main(arguments)
    return code, *capsys.readouterr()


@pytest.mark.usefixtures("small_list")
def test_holes_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    book = tmp_path / "book"
    notebook(
        book / "dynamics" / "a.ipynb",
        "%matplotlib inline\nfrom companion import claims",
        "if True:\n    claims.check(\n        'lemma-1', 'x', 1, equals=1)",
        "%%time\nclaims.check('lemma-2', 'x', 1, equals=1)",
    )
    notebook(book / "b.ipynb", "companion.claims.check(claim_id='bezout', quantity='q')")
    code, out, _ = run(capsys, "--book", str(book))
    assert code == 1
    rows = [line.split() for line in out.splitlines()[:5]]
    assert ["dynamics", "2", "1", "1"] in rows and ["landscape", "1", "1", "1"] in rows
    assert "dynamics, no verdict (1):\n  lemma-2" in out
    assert "dynamics, no check (1):\n  lemma-2" in out
    assert run(capsys, "--book", str(book), "--part", "landscape")[0] == 0
    assert run(capsys, "--book", str(book), "--part", "dynamics")[0] == 1


@pytest.mark.usefixtures("small_list")
def test_unknown_and_hidden_ids_are_flagged(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    book = tmp_path / "book"
    notebook(book / "b.ipynb", "claims.check('bezout', 'q', 1)", "claims.check('bezut', 'q', 1)")
    notebook(book / "c.ipynb", "claims.check(name, 'q', 1)\nother.check('x')\ncheck('y')")
    notebook(book / ".ipynb_checkpoints" / "b.ipynb", "claims.check('old', 'q', 1)")
    code, out, _ = run(capsys, "--book", str(book), "--part", "landscape")
    assert code == 1
    assert "b.ipynb, cell 1: no 'bezut'" in out
    assert "c.ipynb, cell 0: the id is no string literal" in out
    assert "old" not in out and "'x'" not in out and "'y'" not in out


def test_missing_book_and_broken_cells_are_clear_errors(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, err = run(capsys, "--book", str(tmp_path / "nowhere"))
    assert code == 2 and "No folder" in err and "--book" in err
    notebook(tmp_path / "b.ipynb", "claims.check(")
    code, _, err = run(capsys, "--book", str(tmp_path))
    assert code == 2 and "b.ipynb, cell 0 must be Python" in err


def test_module_runs_as_a_command(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "companion.claims", "--book", str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 1 and result.stdout.startswith("part") and result.stderr == ""


def test_anchors_are_unique_and_plain_words_stay() -> None:
    def anchor(quantity: str) -> str:
        return claims.Record("lemma-3", quantity, 1, (), True).anchor

    assert anchor("largest drift of layer 2") == "check-lemma-3-largest-drift-of-layer-2"
    alike = ["a b", "a < b", "a > b", "a-b", "A b", "a < b.", "< >", "> <"]
    anchors = [anchor(quantity) for quantity in alike]
    assert len(set(anchors)) == len(alike)
    assert anchors[1] == "check-lemma-3-a-b-" + hashlib.sha256(b"a < b").hexdigest()[:8]
    assert all(re.fullmatch("[a-z0-9-]+[a-z0-9]", name) for name in anchors)


def test_a_reader_that_leaves_gets_no_traceback(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "companion.claims", "--book", str(tmp_path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.close()  # before anything is written, as head does once it has enough
    assert process.stderr.read() == b"" and process.wait() == 1
    process.stderr.close()
