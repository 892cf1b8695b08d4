"""Speed-up: masks of any pruner become a smaller model (NNI's ``ModelSpeedup``, and a short way)."""

from ._engine import Engine as Engine
from ._fold import Folded as Folded
from ._report import SpeedupReport as SpeedupReport
from ._report import Staying as Staying
from ._speedup import speedup as speedup
