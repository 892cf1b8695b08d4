"""torch's pruning functions and ours, in turn."""

from types import ModuleType

import pytest
from torch.nn.utils import prune as torch_prune

from secateur import masks


@pytest.fixture(params=[torch_prune, masks], ids=["torch", "secateur"])
def prune(request: pytest.FixtureRequest) -> ModuleType:
    return request.param
