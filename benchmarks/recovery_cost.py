"""What recovery costs on ResNet-50 with 1,024 images: time against plain passes, and memory."""

from __future__ import annotations

import resource
import time
from collections.abc import Iterable

import torch
from models import randomise
from torchvision.models import resnet50

import secateur

IMAGES, BATCH, RATIO = 1024, 16, 0.3


def cost_lines(images: int = IMAGES) -> Iterable[str]:
    """A section with seconds and megabytes."""
    torch.manual_seed(0)
    model = randomise(resnet50(weights=None)).eval()
    batches = [torch.randn(BATCH, 3, 224, 224) for _ in range(images // BATCH)]
    start = time.process_time()
    with torch.no_grad():
        for batch in batches[::4]:
            model(batch)
    epoch = 4 * (time.process_time() - start)
    ir = secateur.PruningIR(model)
    ir.create_snapshot("main", args=(batches[0][:1],))
    small = ir.prune(labels=secateur.UniformLabelSelector(RATIO).select(ir), verify=False)
    start = time.process_time()
    report = small.recover(batches)
    seconds = time.process_time() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    yield "## Cost\n"
    yield (
        f"torchvision's resnet50 with random weights, {RATIO:.0%} of every group removed, {images} images of "
        f"224 x 224 in memory ({images * 3 * 224 * 224 * 4 / 2**30:.2f} GB), batches of {BATCH}. The plain "
        "pass was timed on every fourth batch.\n"
    )
    yield "| plain pass, CPU s | recovery, CPU s | runs, passes | sums and solving, passes | solved | GB |"
    yield "|---|---|---|---|---|---|"
    solved = sum(stage.what == "solved" for stage in report.stages)
    # The parts are told in wall time: their shares hold for CPU time too.
    solving = report.seconds["solving"] / sum(report.seconds.values())
    passes = seconds / epoch
    yield (
        f"| {epoch:.0f} | {seconds:.0f} | {passes * (1 - solving):.2f} | {passes * solving:.2f} | "
        f"{solved} layers | {peak:.2f} |\n"
    )
