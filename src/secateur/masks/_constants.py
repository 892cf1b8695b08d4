"""Forward through the recorded graph: what is known of every tensor, given the masks."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ..axes import Analysis, Flow, Signal
from ..capture import ModuleCall, Node, Source, Value
from . import _attention, _elementwise, _movement, _norms, _pooling  # noqa: F401 - they fill the table
from ._known import EXACTLY, Known, constant, spread, unknown
from ._layers import LAYERS, Place
from ._reading import Reading
from ._transfer import TRANSFERS, Step, arguments_of, packet_of
from ._zeros import zeros_by_flow
