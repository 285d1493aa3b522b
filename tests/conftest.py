"""Shared set-up of the tests: one thread for torch, and no tuning to the machine's load."""

from __future__ import annotations

import os

import pytest
import torch
from hypothesis import HealthCheck, settings

# Notebooks run here for what they compute: the build draws all frames of their sliders.
os.environ["BOOK_DRAFT"] = "1"

torch.set_num_threads(1)  # small matrices: threads cost more than they bring

settings.register_profile(
    "companion",
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("companion")

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


@pytest.fixture(params=DEVICES)
def device(request: pytest.FixtureRequest) -> str:
    """Every device at hand."""
    return request.param


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """With `--dist loadgroup`, keep a file's tests in one process, unless they say otherwise."""
    for item in items if config.pluginmanager.hasplugin("xdist") else ():
        if item.get_closest_marker("xdist_group") is None:
            item.add_marker(pytest.mark.xdist_group(item.nodeid.partition("::")[0]))
