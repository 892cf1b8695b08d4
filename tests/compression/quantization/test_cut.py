"""After a speed-up: scales go with their channels, and the small model computes what the masked one did."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from compression.quantization.nets import FUSED, Residual, entry, images, trained_like
from secateur import PruningIR, QuantizationError, speedup
from secateur.compression.pruning import L1NormPruner
from secateur.compression.quantization import (
    LsqPlusQuantizer,
    LsqQuantizer,
    PtqQuantizer,
    QATQuantizer,
    Quantizer,
    carry_calibration,
)

WHOLE_CHANNELS = [
    {"op_names": ["c1", "c2"], "sparse_ratio": 0.5, "dependency_group_id": "auto"},
    {
        "op_names": ["b1", "b2"],
        "target_names": ["weight", "bias"],
        "align": {"module_name": "c1", "target_name": "weight", "dims": [0]},
    },
]


def both(kind: Any, config: list[dict[str, Any]]) -> tuple[Residual, Quantizer]:
    net = trained_like()
    pruner = L1NormPruner(net, WHOLE_CHANNELS, dummy_input=images(2))
    pruner.compress()
    quantizer = kind.from_compressor(pruner, config)
    if isinstance(quantizer, PtqQuantizer):
        quantizer.calibrate([images()])
    else:
        quantizer.track_forward(images())
    return net.eval(), quantizer


@pytest.mark.parametrize("kind", [QATQuantizer, PtqQuantizer, LsqQuantizer, LsqPlusQuantizer])
@pytest.mark.parametrize("scheme", ["symmetric", "affine"])
@pytest.mark.parametrize("granularity", ["default", "out_channel", "in_channel"])
@pytest.mark.filterwarnings("ignore:.*LsqQuantizer has no zero point")
def test_the_small_model_computes_what_the_masked_one_did(kind: Any, scheme: str, granularity: str) -> None:
    settings = {"weight": {"granularity": granularity}}
    config = [entry(["c1", "c2", "fc"], quant_scheme=scheme, fuse_names=FUSED, target_settings=settings)]
    net, quantizer = both(kind, config)
    masked = net(images())
    small, report = quantizer.speedup((images(2),))
    assert net.c1.out_channels == 4 and net.fc.in_features == 4 and report.exact
    assert torch.allclose(net(images()), masked, atol=1e-6)
    assert small.bound_model is net and type(small) is kind
    counts = {"default": (), "out_channel": (4, 1, 1, 1), "in_channel": (1, 4, 1, 1)}[granularity]
    assert small.get_calibration_config()["c2"]["weight"]["scale"].shape == counts
    small.unwrap_model()
    assert not torch.allclose(net(images()), masked, atol=1e-4)  # the comparison can fail


def test_scales_of_channels_of_inputs_and_outputs_follow_the_weight() -> None:
    config = [entry(["c2"], "_input_", "_output_", granularity="per_channel"), entry(["fc"], "_input_")]
    net, quantizer = both(QATQuantizer, config)
    masked, before = net(images()), quantizer.get_calibration_config()
    kept = quantizer.sites.masks()["c1"]["weight"].flatten(1).any(1)
    small, _ = quantizer.speedup((images(2),))
    after = small.get_calibration_config()
    assert torch.equal(after["c2"]["_input_0"]["scale"], before["c2"]["_input_0"]["scale"][:, kept])
    assert torch.equal(
        after["c2"]["_output_0"]["tracked_max"], before["c2"]["_output_0"]["tracked_max"][:, kept]
    )
    assert torch.allclose(net(images()), masked, atol=1e-6)


def test_a_depthwise_convolution_and_a_transposed_one() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3, groups=8), nn.ReLU(), nn.ConvTranspose2d(8, 4, 2)
    )  # fmt: skip
    pruner = L1NormPruner(
        net,
        [{"op_names": ["0", "2"], "sparse_ratio": 0.5, "dependency_group_id": "auto"}],
        dummy_input=images(2),
    )
    pruner.compress()
    config = [
        entry(["0", "2", "4"], "weight", granularity="out_channel"),
        entry(["2", "4"], "_input_", granularity="per_channel"),
    ]
    quantizer = QATQuantizer.from_compressor(pruner, config)
    quantizer.track_forward(images())
    masked = net.eval()(images())
    small, _ = quantizer.speedup((images(2),))
    assert net[2].groups == 4 and torch.allclose(net(images()), masked, atol=1e-6)
    found = small.get_calibration_config()
    assert found["2"]["_input_0"]["scale"].shape == (1, 4, 1, 1) == found["4"]["_input_0"]["scale"].shape
    assert found["4"]["weight"]["scale"].shape == (1, 4, 1, 1)


def test_scales_follow_channels_that_change_places() -> None:
    """Groups of a convolution stay equal by an exchange of channels between the positions of each."""
    for granularity in ("out_channel", "in_channel"):
        torch.manual_seed(0)
        net = nn.Sequential(
            nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3, groups=2), nn.ReLU(), nn.Conv2d(8, 4, 1)
        )
        config = [
            entry(
                ["0", "2", "4"], "_input_", "weight", target_settings={"weight": {"granularity": granularity}}
            )
        ]
        quantizer = QATQuantizer(net.eval(), config)
        masks = {"0": {"weight": torch.ones(8, 3, 3, 3), "bias": torch.ones(8)}}
        for channel in (0, 3, 5, 6):
            masks["0"]["weight"][channel] = masks["0"]["bias"][channel] = 0
            for values in (net[0]._parameters["weight"], net[0]._parameters["bias"]):
                values.data[channel] = 0
        for number in (0, 2):  # every channel its own scale
            target = net[number]._parameters["weight"]
            target.data.mul_(torch.rand(target.shape[0], target.shape[1], 1, 1) + 0.1)
        quantizer.refresh()
        quantizer.track_forward(images())
        masked = net(images())
        _, report = quantizer.speedup((images(2),), masks=masks)
        (change,) = [change for change in report.plan.tensors if "0.weight" in change.names]
        assert change.positions[0].tolist() != report.origins["0.weight"][0].tolist() == [1, 2, 4, 7]
        assert net[0].out_channels == 4 and torch.allclose(net(images()), masked, atol=1e-6)


def test_the_steps_by_hand() -> None:
    net, quantizer = both(QATQuantizer, [entry(["c1", "c2", "fc"], fuse_names=FUSED)])
    masked, masks = net(images()), quantizer.sites.masks()
    calibration = quantizer.get_calibration_config()
    quantizer.unwrap_model()
    report = speedup(net, (images(2),), masks=masks)
    small = PtqQuantizer(net, quantizer.config_list)
    small.update_calibration_config(carry_calibration(quantizer, calibration, report))
    assert torch.allclose(net(images()), masked, atol=1e-6)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            entry(["relu"], "_output_", granularity="per_channel"),
            r"relu\._output_0 has a scale for each channel",
        ),
        (
            entry(["c2"], "weight", granularity=[[4], "back", -1]),
            r"c2\.weight: its scales are of blocks of 4",
        ),
    ],
)
def test_scales_that_cannot_follow_are_named_before_the_cut(config: dict[str, Any], message: str) -> None:
    net, quantizer = both(QATQuantizer, [config])
    quantised = net(images())
    with pytest.raises(QuantizationError, match=message):
        quantizer.speedup((images(2),))
    assert net.c1.out_channels == 8 and torch.equal(net(images()), quantised)


def test_constants_of_masked_channels_are_kept_as_they_were_rounded() -> None:
    """Masks as those of NNI: the norm behind a masked channel still puts out its shift, which is read."""
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8), nn.ReLU(),
        nn.Flatten(), nn.Linear(128, 5),
    )  # fmt: skip
    for norm in (net[1], net[4]):
        nn.init.uniform_(norm.bias, 0.2, 1)
    pruner = L1NormPruner(net.eval(), [{"op_names": ["0", "3"], "sparse_ratio": 0.5}])
    pruner.compress()
    fused = [("0", "1"), ("3", "4")]
    config = [entry(["0", "3", "7"], "_input_", "weight", dtype="int4", fuse_names=fused)]
    quantizer = PtqQuantizer.from_compressor(pruner, config)
    quantizer.calibrate([images()])
    masked = net(images())
    small, report = quantizer.speedup((images(2),))
    assert len(report.folded) == 2 and report.exact and net[3].in_channels == 4
    assert torch.allclose(net(images()), masked, atol=1e-5)
    small.unwrap_model()


def test_a_weight_that_a_cut_scales_takes_its_scale_along() -> None:
    class Normed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.up, self.norm, self.down = nn.Linear(6, 8), nn.RMSNorm(8), nn.Linear(8, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.down(self.norm(self.up(x)))

    torch.manual_seed(0)
    net = Normed()
    nn.init.normal_(net.norm.weight)
    quantizer = QATQuantizer(net, [entry(["up", "norm", "down"], "weight")])
    grid, before = quantizer.grids()["down"]["weight"], net.down._parameters["weight"].detach().clone()
    quantizer.unwrap_model()
    ir = PruningIR(net)
    ir.create_snapshot(args=(torch.randn(5, 6),))
    group = next(group for group in ir.groups() if group.size == 8)
    report = ir.prune(labels=group.labels[:4], inplace=True).report
    assert report is not None and any(change.scales for change in report.plan.tensors)
    small = quantizer.carry(report)
    after = small.grids()["down"]["weight"]
    assert not torch.allclose(after.scale, grid.scale)
    steps = (net.down._parameters["weight"] / after.scale).round()
    assert torch.equal(steps, (before[:, 4:] / grid.scale).round())


@pytest.mark.parametrize("kind", [QATQuantizer, PtqQuantizer, LsqQuantizer])
def test_norms_are_folded_for_good(kind: Any) -> None:
    net, quantizer = both(kind, [entry(["c1", "c2", "fc"], fuse_names=FUSED)])
    simulated, scales = net(images()).detach(), quantizer.get_calibration_config()
    folded = quantizer.fold()
    assert isinstance(net.b1, nn.Identity) and isinstance(net.b2, nn.Identity) and net.c1.bias is not None
    step = float(scales["fc"]["_output_0"]["scale"])
    off = (net(images()).detach() - simulated).abs() / step
    assert (
        float(off.max()) < 1.01 and float((off > 0.01).float().mean()) < 0.05
    )  # a tie can fall the other way
    assert torch.equal(
        folded.get_calibration_config()["c1"]["weight"]["scale"], scales["c1"]["weight"]["scale"]
    )
    assert [chain.paths for chain in folded.chains] == [("c1", "relu")]
    folded.unwrap_model()
    assert torch.allclose(net(images()), simulated, atol=0.2 * float(simulated.abs().max()))
