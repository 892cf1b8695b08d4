"""Compression by configuration, under the import paths of NNI 3.0."""

from .evaluators import Evaluator as Evaluator
from .evaluators import LightningEvaluator as LightningEvaluator
from .evaluators import TorchEvaluator as TorchEvaluator
from .evaluators import TransformersEvaluator as TransformersEvaluator
