"""``torch.nn.utils.prune`` chooses the channels of a ResNet; ``secateur.speedup`` takes them off.

    python examples/speedup_resnet.py

Every convolution is pruned on its own, so layers that a shortcut couples disagree: what has to stay is
listed with the reason. ``on_inexact="keep"`` makes every step exact, padded convolutions included.
"""

import torch
import torchvision
from torch import nn
from torch.nn.utils import prune

import secateur


def main() -> None:
    torch.manual_seed(0)
    model = torchvision.models.resnet18(weights=None).eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):  # as training would have left it
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
        elif isinstance(module, nn.Conv2d):
            prune.ln_structured(module, "weight", amount=0.5, n=1, dim=0)
    x = torch.randn(2, 3, 128, 128)
    with torch.no_grad():
        wanted = model(x)

    report = secateur.speedup(model, (x,), on_inexact="keep")

    with torch.no_grad():
        error = (model(x) - wanted).norm() / wanted.norm()
    before, after = report.parameters
    print(f"{before / 1e6:.2f} M parameters become {after / 1e6:.2f} M; outputs differ by {error:.1e}")
    print("masked channels that stay, by reason:")
    for reason, count in report.reasons().most_common(5):
        print(f"{count:5d}  {reason}")


if __name__ == "__main__":
    main()
