"""What has to hold between the settings of a target, and between targets."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from ._granularity import block_for
from ._problems import Problems
from ._resolved import AUTO
from ._settings import Align, PruningSettings
from ._targets import Target


def check_targets(targets: list[Target], problems: Problems) -> None:
    """Check all targets together; alignments that need it get their blocks, in place."""
    by_name = {(target.module, target.name): target for target in targets}
    for at, target in enumerate(targets):
        if isinstance(target.settings, PruningSettings):
            _check_settings(target, problems)
            _check_blocks(target, problems)
            align = target.settings.align
            if align is not None:
                targets[at] = _check_align(target, align, by_name, problems)
    _check_cycles(by_name, problems)
    for key in ("global_group_id", "dependency_group_id"):
        _check_groups(targets, key, problems)


def _check_settings(target: Target, problems: Problems) -> None:
    settings, entry, path = target.settings, target.entry, target.path
    if settings.sparse_ratio is not None and settings.sparse_threshold is not None:
        text = "'sparse_ratio' is given too: one of them"
        problems.add(entry, "sparse_threshold", settings.sparse_threshold, text, path)
    if settings.min_sparse_ratio > settings.max_sparse_ratio:
        text = f"more than max_sparse_ratio, {settings.max_sparse_ratio}"
        problems.add(entry, "min_sparse_ratio", settings.min_sparse_ratio, text, path)
    if settings.apply_method == "add" and not target.is_activation:
        text = "adding is for inputs and outputs, such as the input of a softmax; a parameter is multiplied"
        problems.add(entry, "apply_method", "add", text, path)
    group = settings.global_group_id
    if group is not None and settings.sparse_ratio is None and settings.align is None:
        text = "a global group shares a sparse_ratio, and there is none"
        problems.add(entry, "global_group_id", group, text, path)


def _check_blocks(target: Target, problems: Problems) -> None:
    settings = target.settings
    if target.shape is None:
        wrong = _wrong_for_activations(target)
        count = 0
    else:
        block, wrong = block_for(settings.granularity, target.channels, target.shape, activation=False)
        count = _count(target.shape, block) if block or not target.shape else 0
    if wrong and (settings.active or settings.granularity.name not in ("out_channel", "in_channel")):
        problems.add(target.entry, "granularity", settings.granularity.to_config(), wrong, target.path)
    elif count and settings.active and count % settings.internal_metric_block:
        text = f"the target has {count} blocks, which is no multiple of it"
        problems.add(target.entry, "internal_metric_block", settings.internal_metric_block, text, target.path)


def _wrong_for_activations(target: Target) -> str:
    """What is wrong with a granularity whatever the shape will be."""
    name = target.settings.granularity.name
    if name in ("in_channel", "out_channel"):
        return f"{name!r} is for parameters; inputs and outputs have 'per_channel'"
    return (
        block_for(target.settings.granularity, target.channels, (1,), activation=True)[1]
        if name == "heads"
        else ""
    )


def _check_align(
    target: Target, align: Align, by_name: dict[tuple[str, str], Target], problems: Problems
) -> Target:
    said = {"module_name": align.module_name, "target_name": align.target_name, "dims": list(align.dims)}
    source = by_name.get((align.module_name, align.target_name))
    if source is None or not (source.settings.active or source.settings.align):
        text = f"{align.module_name}.{align.target_name} gets no mask from this list that could be followed"
        problems.add(target.entry, "align", said, text, target.path)
        return target
    if source.shape is None or target.shape is None:
        return target
    rank, shape = len(source.shape), target.shape
    if any(not -rank <= dim < rank for dim in align.dims):
        text = f"the mask that is followed has dimensions 0 to {rank - 1}"
        problems.add(target.entry, "align", said, text, target.path)
        return target
    # The output channels of a grouped transposed convolution lie in two dimensions, and in blocks there.
    out = source.channels.out
    if {dim % rank for dim in align.dims} == {dim for dim in range(rank) if out[dim] < source.shape[dim]}:
        align = replace(align, block=out)
        target = replace(target, settings=replace(target.settings, align=align))
    own, wrong = block_for(target.settings.granularity, target.channels, shape, activation=False)
    if wrong:  # that has been said
        return target
    wanted = _count(shape, own)
    count = _count(source.shape, align.blocks(source.shape))
    if count != wanted:
        text = f"{count} positions are followed, and the target has {wanted}"
        problems.add(target.entry, "align", said, text, target.path)
    return target


def _check_cycles(by_name: dict[tuple[str, str], Target], problems: Problems) -> None:
    for start, target in by_name.items():
        seen, now = [start], target
        while now.settings.align is not None:
            after = (now.settings.align.module_name, now.settings.align.target_name)
            if after == start:
                chain = " -> ".join(".".join(filter(None, step)) for step in [*seen, start])
                problems.add(target.entry, "align", text=f"masks follow each other in a circle: {chain}")
                return
            if after in seen or after not in by_name:
                break
            seen.append(after)
            now = by_name[after]


def _check_groups(targets: Sequence[Target], key: str, problems: Problems) -> None:
    groups: dict[object, list[Target]] = {}
    for target in targets:
        group = getattr(target.settings, key, None)
        if group is not None and group != AUTO:
            groups.setdefault(group, []).append(target)
    for group, members in groups.items():
        ratios = {t.settings.sparse_ratio: t for t in members if t.settings.sparse_ratio is not None}
        if len(ratios) > 1:
            said = ", ".join(f"{t.path} {ratio:g}" for ratio, t in ratios.items())
            text = f"the targets of a group have one sparse_ratio, and here are {said}"
            problems.add(max(t.entry for t in members), key, group, text)
        if key == "dependency_group_id":
            _check_same_size(group, members, problems)


def _check_same_size(group: object, members: Sequence[Target], problems: Problems) -> None:
    counts: dict[int, Target] = {}
    for target in members:
        if target.shape is not None:
            block, wrong = block_for(
                target.settings.granularity, target.channels, target.shape, activation=False
            )
            if not wrong:
                counts.setdefault(_count(target.shape, block), target)
    if len(counts) > 1:
        said = ", ".join(f"{target.path} {count}" for count, target in counts.items())
        text = f"targets with the same positions have equally many blocks, and here are {said}"
        problems.add(max(t.entry for t in members), "dependency_group_id", group, text)


def _count(shape: Sequence[int], block: Sequence[int]) -> int:
    return math.prod(size // part for size, part in zip(shape, block, strict=True))
