"""The exceptions of Secateur.

    SecateurError
    ├── CaptureError(RuntimeError)        the model could not be run and recorded
    │   └── UnsupportedModelError(TypeError)   a kind of model that cannot be recorded at all
    ├── RuleError(ValueError)             an operator rule contradicts itself or another one
    ├── LabelError(ValueError)            labels, groups or ratios that do not fit the model
    ├── ScoreError(ValueError)             scores that cannot be computed from what a criterion was given
    ├── TargetError(ValueError)            a cost or latency that no selection reaches
    ├── MeasurementError(RuntimeError)     a cost function or a timing that failed
    ├── MaskError(ValueError)             masks that do not fit the model, or a file that holds none
    │   ├── ParameterNameError(AttributeError) a parameter to be masked that the module does not have
    │   └── DimensionError(IndexError)         a dimension that the parameter to be masked does not have
    ├── ConfigError(ValueError)           a config list with mistakes: all of them, in one message
    ├── CompressionError(ValueError)      a compressor or evaluator that was given what it cannot work with
    │   ├── PruningError                       a pruner, or a schedule
    │   ├── QuantizationError                  a quantiser, or what its scales are made of
    │   └── DistillationError                  a distiller, or its teacher
    ├── SurgeryError(RuntimeError)        a plan that the model's code cannot follow
    ├── VerificationError(RuntimeError)   the small model does not compute what the masked model computes
    ├── PersistenceError(ValueError)      a file that is no saved model, or is one of another model
    ├── RecoveryError(ValueError)         a recovery without data, or without the model it is to imitate
    ├── RecipeError(ValueError)           a recipe with mistakes: all of them, in one message
    ├── DeploymentError(RuntimeError)      a model that cannot be exported, or that a runtime refuses
    ├── OptimizerError(ValueError)        an optimizer whose state cannot follow a cut
    └── DependencyError(ImportError)      an optional package that is not installed

Every class is also the builtin that a caller would expect.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import get_close_matches


class SecateurError(Exception):
    """Root of all exceptions that Secateur raises on its own account."""


class CaptureError(SecateurError, RuntimeError):
    """The model could not be run and recorded with the given inputs."""


class UnsupportedModelError(CaptureError, TypeError):
    """The model is of a kind that cannot be recorded, such as a ``ScriptModule``."""


class RuleError(SecateurError, ValueError):
    """An operator rule is registered twice, or states something that the operator contradicts."""


class LabelError(SecateurError, ValueError):
    """Labels, group names or ratios that do not fit the model they are used on."""


class ScoreError(SecateurError, ValueError):
    """Scores cannot be computed: a loss that is NaN, a loop without a batch, no gradient."""


class TargetError(SecateurError, ValueError):
    """No selection reaches the wanted cost; ``reachable`` is the lowest cost that one does reach."""

    def __init__(self, message: str, reachable: float = float("nan")) -> None:
        super().__init__(message)
        self.reachable = reachable


class MeasurementError(SecateurError, RuntimeError):
    """A cost function raised, or returned something that is no positive number."""


class MaskError(SecateurError, ValueError):
    """Masks that do not fit the model, or that cannot be read; nothing has been changed."""


class CompressionError(SecateurError, ValueError):
    """A compressor or evaluator was given what it cannot work with; the model is as it was."""


class PruningError(CompressionError):
    """A pruner or schedule was given what it cannot work with."""


class QuantizationError(CompressionError):
    """A quantiser was given what it cannot work with, or has seen too little to know its scales."""


class DistillationError(CompressionError):
    """A distiller or teacher that does not fit the student."""


class ParameterNameError(MaskError, AttributeError):
    """The module has no parameter of that name; nothing has been changed."""


class DimensionError(MaskError, IndexError):
    """The parameter has no such dimension; nothing has been changed."""


class ConfigError(SecateurError, ValueError):
    """A config list with mistakes; ``problems`` has every one of them, a line each."""

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        count = f"{len(self.problems)} mistakes" if len(self.problems) != 1 else "a mistake"
        super().__init__("\n".join([f"the config list has {count}:", *self.problems]))

    def __reduce__(self) -> tuple[type[ConfigError], tuple[tuple[str, ...]]]:
        return type(self), (self.problems,)


class RecipeError(SecateurError, ValueError):
    """A recipe with mistakes; ``problems`` has every one of them, a line each."""

    def __init__(self, file: str, problems: Sequence[str]) -> None:
        self.file, self.problems = file, tuple(problems)
        count = f"{len(self.problems)} mistakes" if len(self.problems) != 1 else "a mistake"
        super().__init__("\n".join([f"{file} has {count}:", *self.problems]))

    def __reduce__(self) -> tuple[type[RecipeError], tuple[str, tuple[str, ...]]]:
        return type(self), (self.file, self.problems)


class SurgeryError(SecateurError, RuntimeError):
    """The plan cannot be carried out on this model; nothing has been changed."""


class VerificationError(SecateurError, RuntimeError):
    """The small model and the masked model disagree; the model has been given back untouched."""


class PersistenceError(SecateurError, ValueError):
    """A model that cannot be saved, or a file that is no saved model, or one of another model."""


class RecoveryError(SecateurError, ValueError):
    """A recovery has no data, or no original to imitate; the model is as it was."""


class DeploymentError(SecateurError, RuntimeError):
    """A model cannot be exported, or the runtime that it was exported for refuses it."""


class DependencyError(SecateurError, ImportError):
    """An optional package is not installed; the message says which extra brings it."""


class OptimizerError(SecateurError, ValueError):
    """An optimizer that does not fit the cut, or whose state cannot follow; it is unchanged."""


def nearest(name: str, known: Iterable[str]) -> str:
    """The end of a message about an unknown name: which known one may have been meant, if any.

    >>> nearest("conv1.weigth", ["conv1.weight", "conv1.bias"])
    "; did you mean 'conv1.weight'?"
    """
    close = get_close_matches(str(name), [other for other in known if other], n=1)
    return f"; did you mean {close[0]!r}?" if close else ""
