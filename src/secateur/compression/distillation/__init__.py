"""Distillation: a small model learns from the one that it was made from (NNI's names, and a plain way)."""

from ._distiller import TeacherModelBasedDistiller as TeacherModelBasedDistiller
from ._layerwise import Adaptive1dLayerwiseDistiller as Adaptive1dLayerwiseDistiller
from ._layerwise import DynamicLayerwiseDistiller as DynamicLayerwiseDistiller
from ._logits import LogitsDistillation as LogitsDistillation
from ._logits import distill as distill
from ._losses import attention_transfer as attention_transfer
from ._losses import cosine as cosine
from ._losses import kl as kl
from ._losses import mse as mse
