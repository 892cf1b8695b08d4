"""A small quantised network, made once: exporting it takes a second."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from deployable import Quantised, images, network
from secateur.compression.quantization import PtqQuantizer
from secateur.deploy import int8_config_list, to_onnx


@pytest.fixture(scope="session")
def quantised(tmp_path_factory: pytest.TempPathFactory) -> Quantised:
    original, simulated = network(), network()
    quantizer = PtqQuantizer(simulated, int8_config_list(simulated, (images(2),)))
    with torch.no_grad():
        quantizer.calibrate([images(32, 1), images(32, 2)])
    path = Path(tmp_path_factory.mktemp("onnx")) / "network.onnx"
    report = to_onnx(simulated, (images(4),), path, original=original, samples=[images(64, 5)], runs=5)
    return Quantised(original, simulated, report)
