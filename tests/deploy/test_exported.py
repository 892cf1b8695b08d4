"""The other ways out: torch.export's file and OpenVINO."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from deployable import Quantised, images
from secateur._errors import DependencyError, DeploymentError
from secateur.deploy import to_openvino, to_pt2
from secateur.deploy._extras import needed


def test_pt2_is_small_loads_and_agrees(quantised: Quantised, tmp_path: Path) -> None:
    report = to_pt2(quantised.simulated, (images(4),), tmp_path / "a.pt2", samples=[images(9)], runs=2)
    assert report.agreement.within_one_step == 1.0
    loaded = torch.export.load(tmp_path / "a.pt2")
    assert sum(tensor.dtype is torch.int8 and tensor.dim() > 1 for tensor in loaded.state_dict.values()) == 4
    assert loaded.module()(images(7)).shape == (7, 5)


def test_openvino_runs_it(quantised: Quantised, tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    report = to_openvino(quantised.simulated, (images(4),), tmp_path / "a.xml", samples=[images(9)], runs=2)
    assert report.agreement.within_one_step >= 0.95
    assert report.bytes == sum((tmp_path / name).stat().st_size for name in ("a.xml", "a.bin"))
    assert report.runtime.startswith("OpenVINO 20")


def test_openvino_writes_xml(quantised: Quantised, tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    with pytest.raises(DeploymentError, match=r"reads \.xml files"):
        to_openvino(quantised.simulated, (images(4),), tmp_path / "a.onnx")


def test_a_missing_package_names_the_extra() -> None:
    with pytest.raises(DependencyError, match=r'pip install "secateur\[deploy\]"'):
        needed("no_such_runtime.api", "deploy", "to_onnx")
