"""Speed-up: masks of any pruner become a smaller model (NNI's ``ModelSpeedup``, and a short way)."""

from ._activations import argument_position as argument_position
from ._activations import replace_item as replace_item
from ._align import Pair as Pair
from ._align import reorder as reorder
from ._customize import DefaultReplacer as DefaultReplacer
from ._customize import MaskUpdater as MaskUpdater
from ._customize import NoChangeMaskUpdater as NoChangeMaskUpdater
from ._customize import Replacer as Replacer
from ._engine import Engine as Engine
from ._fold import Folded as Folded
from ._model_speedup import ModelSpeedup as ModelSpeedup
from ._model_speedup import dummy_inputs as dummy_inputs
from ._report import SpeedupReport as SpeedupReport
from ._report import Staying as Staying
from ._speedup import speedup as speedup
