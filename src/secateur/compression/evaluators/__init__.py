"""Evaluators: how a pruner gets a model trained and evaluated."""

from ._evaluator import Evaluator as Evaluator
from ._hooks import BackwardHook as BackwardHook
from ._hooks import ForwardHook as ForwardHook
from ._hooks import TensorHook as TensorHook
from ._lightning import LightningEvaluator as LightningEvaluator
from ._torch import TorchEvaluator as TorchEvaluator
from ._transformers import TransformersEvaluator as TransformersEvaluator
