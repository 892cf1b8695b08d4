"""What holds for every test: fixed seeds, no network, and two effort levels for property tests."""

import os

# Before anything imports transformers or timm: tests build their models from configurations.
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import pytest
import torch
from hypothesis import HealthCheck, settings

# No deadline: the first example of a test pays for imports and for the warm-up of torch.
_COMMON = {"deadline": None, "suppress_health_check": list(HealthCheck)}

# `make test`: the same examples for everybody, so a red test is red on every machine.
settings.register_profile("fast", max_examples=150, derandomize=True, **_COMMON)
# `make fuzz` (--hypothesis-profile=fuzz overrides the line below): new examples in every run, and
# ten thousand of them, since there are two tests of random networks.
settings.register_profile("fuzz", max_examples=5000, print_blob=True, **_COMMON)
settings.load_profile("fast")


@pytest.fixture(autouse=True)
def _seed() -> None:
    """Start every test from the same random state, whatever ran before it."""
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _nothing_global_changes():
    """No test and nothing it calls may leave torch's global switches changed."""
    before = _switches()
    yield
    assert _switches() == before


def _switches() -> dict[str, object]:
    return {
        "default dtype": torch.get_default_dtype(),
        "gradients": torch.is_grad_enabled(),
        "inference": torch.is_inference_mode_enabled(),
        "threads": torch.get_num_threads(),
        "fast path": torch.backends.mha.get_fastpath_enabled(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "dispatch modes": torch._C._len_torch_dispatch_stack(),
    }
