"""``ModelSpeedup`` under NNI's import path (``nni.compression.speedup``)."""

from ..speedups import DefaultReplacer as DefaultReplacer
from ..speedups import MaskUpdater as MaskUpdater
from ..speedups import ModelSpeedup as ModelSpeedup
from ..speedups import NoChangeMaskUpdater as NoChangeMaskUpdater
from ..speedups import Replacer as Replacer
