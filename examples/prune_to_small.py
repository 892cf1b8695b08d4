"""From ``prune.ln_structured`` to a smaller, faster model: digits, ordinary training, no config.

python examples/prune_to_small.py
"""

import argparse
import copy

import torch
from digits import Block, DigitNet, Digits, accuracy, train

import secateur
from secateur import masks as prune


def mask_channels(block: Block, amount: float) -> None:
    """Mask channels between the two convolutions of a block, and with them what their norm would add."""
    prune.ln_structured(block.conv1, "weight", amount=amount, n=2, dim=0, of="original")
    kept = block.conv1.weight_mask.amax((1, 2, 3))
    for name in ("weight", "bias"):
        prune.custom_from_mask(block.norm1, name, kept)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=8, help="of training")
    parser.add_argument("--tuning", type=int, default=3, help="epochs with masks on, for each of two rounds")
    parser.add_argument("--width", type=int, default=32, help="channels of the first layers")
    options = parser.parse_args(arguments)
    torch.manual_seed(0)
    torch.set_num_threads(1)
    digits = Digits()
    model = DigitNet(options.width)
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9, weight_decay=5e-4)
    train(model, optimizer, digits, options.epochs, lr=0.1)
    whole = copy.deepcopy(model)
    print(f"trained:  accuracy {accuracy(whole, digits):.1%}, {size(whole)}")

    for amount in (0.5, 0.75):  # of all channels, so the second round adds to the first
        for block in model.blocks:
            mask_channels(block, amount)
        train(model, optimizer, digits, options.tuning, lr=0.02)  # the same loop, the same optimizer
        print(f"{amount:.0%} masked: accuracy {accuracy(model, digits):.1%}, {size(model)}")

    images = digits.test[0]
    with torch.no_grad():
        masked = model(images).argmax(1)
    report = secateur.speedup(model, (images[:64],))
    with torch.no_grad():
        equal = bool((model(images).argmax(1) == masked).all())
    print(f"small:    accuracy {accuracy(model, digits):.1%}, {size(model)}")
    print(f"outputs differ by {report.error:.0e}; every prediction is the same: {equal}")
    seconds = secateur.measure_latency({"whole": whole, "small": model}, (images[:64],), threads=1, runs=50)
    before, after = (seconds[name].median * 1e3 for name in ("whole", "small"))
    print(f"latency of 64 images: {before:.1f} ms, now {after:.1f} ms ({before / after:.2f} times as fast)")
    if not equal:
        raise SystemExit("the small model predicts something else than the masked one")


def size(model: torch.nn.Module) -> str:
    return f"{sum(parameter.numel() for parameter in model.parameters()) / 1e3:.0f} k parameters"


if __name__ == "__main__":
    main()
