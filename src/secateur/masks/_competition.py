"""Softmax: positions compete, and those at minus infinity take no part, whatever the others are.

That is how a position of a softmax is masked: zero would still get a share. So the axis of a softmax, which
is pinned otherwise, can lose positions that additive masks put there; everything else on it stays.
"""

from __future__ import annotations

import math

import torch

from ..axes import Analysis
from ..capture import Node
from ._constants import Constants
from ._exits import Block, Exit, FixedExit, Why
from ._known import EXACTLY, compress, spread
from ._transfer import arguments_of, packet_of
from ._zeros import labels_where

aten = torch.ops.aten
_SOFTMAX = {aten.softmax, aten._softmax, aten._safe_softmax, aten.log_softmax, aten._log_softmax}


def release_competitors(analysis: Analysis) -> None:
    """Take back that axes of a softmax may not be shortened; :func:`find_competitions` says what has to
    stay."""
    pins = analysis.algebra.pins
    pins[:] = [pin for pin in pins if not (isinstance(pin[2], Node) and packet_of(pin[2].op) in _SOFTMAX)]


def find_competitions(constants: Constants) -> list[Exit]:
    """What every softmax asks: labels stay that are not at minus infinity."""
    return [
        _competition(constants, node)
        for node in constants.analysis.graph.nodes
        if packet_of(node.op) in _SOFTMAX and node.inputs
    ]


def _competition(constants: Constants, node: Node) -> Exit:
    analysis, addresses = constants.analysis, constants.addresses
    id_ = node.inputs[0]
    dims, known = analysis.dims_of(id_), constants.seen[node.index][id_]
    value, state = compress(known.value, known.state)
    absent = spread((value == -math.inf) & (state == EXACTLY), known.shape)
    blocks = []
    axes = [axis for axis, _, _ in addresses.of(dims[arguments_of(node)["dim"]])] if dims else []
    for axis in axes:
        gone = labels_where(dims, lambda: absent, axis, addresses)
        stay = torch.ones(axis.size, dtype=torch.bool) if gone is None else ~gone
        blocks.append(Block(axis, stay, Why.COMPETES, node))
    return FixedExit(axes, blocks, blocks, node)
