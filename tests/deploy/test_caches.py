"""Models of transformers that give back a cache, which no runtime knows."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from secateur.deploy import to_integers, to_onnx


class Cache:
    """As torch.export meets it: an object of some class."""

    def __init__(self, keys: Tensor) -> None:
        self.keys = keys


class Caching(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 3)
        self.config = SimpleNamespace(use_cache=True)

    def forward(self, x: Tensor) -> tuple[Tensor] | tuple[Tensor, Cache]:
        made = self.layer(x)
        return (made, Cache(made)) if self.config.use_cache else (made,)


def test_a_model_with_a_cache_is_deployed_without_it(tmp_path: Path) -> None:
    model, x = Caching().eval(), torch.randn(2, 4)
    report = to_onnx(model, (x,), tmp_path / "a.onnx", runs=1)
    assert report.agreement.relative_error < 1e-5
    assert report.model is not None
    torch.testing.assert_close(report.model(x), model.layer(x))
    torch.testing.assert_close(to_integers(model, (x,))(x)[0], model.layer(x))
    assert model.config.use_cache is True


def test_the_config_comes_back_after_a_failure(tmp_path: Path) -> None:
    class Failing(Caching):
        def forward(self, x: Tensor) -> tuple[Tensor]:
            return (self.layer(x) if float(x.sum()) > 0 else x,)

    model = Failing().eval()
    with pytest.raises(RuntimeError):
        to_onnx(model, (torch.randn(2, 4),), tmp_path / "a.onnx", runs=1)
    assert model.config.use_cache is True
