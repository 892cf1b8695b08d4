"""What holds for every test: fixed seeds, no network, and two effort levels for property tests."""

import os

# Before anything imports transformers or timm: tests build their models from configurations.
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import pytest
import torch
from hypothesis import HealthCheck, settings

# No deadline: the first example of a test pays for imports and for the warm-up of torch.
_COMMON = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}

# `make test`: the same examples for everybody, so a red test is red on every machine.
settings.register_profile("fast", max_examples=25, derandomize=True, **_COMMON)
# `make fuzz` (--hypothesis-profile=fuzz overrides the line below): new examples in every run.
settings.register_profile("fuzz", max_examples=1000, print_blob=True, **_COMMON)
settings.load_profile("fast")


@pytest.fixture(autouse=True)
def _seed() -> None:
    """Start every test from the same random state, whatever ran before it."""
    torch.manual_seed(0)
