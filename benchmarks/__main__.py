"""Run every comparison, print a table, and write ``_build/bench.json``."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path

import torch

from benchmarks import dual_acceleration, ensemble, hessian, linear_margin, nonlinear_log_loss
from benchmarks.comparison import Comparison

OUTPUT = Path("_build/bench.json")
SUITES = (linear_margin, dual_acceleration, nonlinear_log_loss, hessian, ensemble)


def main() -> int:
    """Run the suites in this process, on one thread; exit 1 if one falls short of its bar."""
    torch.set_num_threads(1)
    results: dict[str, Comparison] = {}
    for suite in SUITES:
        for name, result in suite.run().items():
            results[name] = result
            print(f"{name:32} {result}", flush=True)
            print(f"{'':32} {result.note}", flush=True)
    OUTPUT.parent.mkdir(exist_ok=True)
    document = {name: dataclasses.asdict(result) for name, result in results.items()}
    OUTPUT.write_text(json.dumps(document, indent=2) + "\n")
    print(f"Written to {OUTPUT}")
    return int(any(result.ratio < result.bar for result in results.values()))


if __name__ == "__main__":
    sys.exit(main())
