"""``ModelSpeedup`` under NNI's import path (``nni.compression.speedup``)."""

from ..speedups import DefaultReplacer, MaskUpdater, ModelSpeedup, NoChangeMaskUpdater, Replacer

__all__ = ["DefaultReplacer", "MaskUpdater", "ModelSpeedup", "NoChangeMaskUpdater", "Replacer"]
