"""Verification: the small model against the masked one, on the same inputs."""

from ._compare import Comparison as Comparison
from ._compare import Verification as Verification
from ._compare import compare as compare
from ._compare import tolerance_of as tolerance_of
from ._compare import verify as verify
from ._observer import Observer as Observer
from ._observer import Recorded as Recorded
