"""PyTorch's own integer kernels."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

pytest.importorskip("torchao")

from deployable import Quantised, images
from secateur.deploy import TorchInt8Model, to_torch_int8


@pytest.mark.slow
def test_integer_kernels_run_and_agree_with_the_simulation(quantised: Quantised, tmp_path: Path) -> None:
    from torch._inductor import config

    before = config.pre_grad_custom_pass
    path = tmp_path / "net.pt2"
    report = to_torch_int8(
        quantised.simulated, (images(4),), path, original=quantised.original, samples=[images(64, 5)], runs=2
    )
    assert report.kernels["onednn.qconv_pointwise"] == 3  # behind a padding too
    assert "aten.hardtanh" not in report.kernels  # the integers' ends do what ReLU6 does
    assert report.kernels["onednn.qlinear_pointwise"] == 1
    assert report.agreement.within_one_step >= 0.99
    assert report.agreement.top1 >= 0.95
    assert report.agreement == report.float_agreement
    assert "torchao" in report.runtime
    assert report.smaller is not None
    assert report.bytes == path.stat().st_size
    assert config.pre_grad_custom_pass is before
    again = TorchInt8Model(path)  # any batch, from the file alone
    with torch.no_grad():
        torch.testing.assert_close(again(images(3)), quantised.simulated(images(3)), atol=0.2, rtol=0)
        original = (quantised.original(images(64, 5)) - quantised.simulated(images(64, 5))).norm()
        made = (again(images(64, 5)) - quantised.simulated(images(64, 5))).norm()
    assert made < 0.3 * original
