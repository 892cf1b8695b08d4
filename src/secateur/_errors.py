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
    ├── SurgeryError(RuntimeError)        a plan that the model's code cannot follow
    ├── VerificationError(RuntimeError)   the small model does not compute what the masked model computes
    ├── PersistenceError(ValueError)      a file that is no saved model, or is one of another model
    └── OptimizerError(ValueError)        an optimizer whose state cannot follow a cut

Every class is also the builtin that a caller would expect.
"""


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


class SurgeryError(SecateurError, RuntimeError):
    """The plan cannot be carried out on this model; nothing has been changed."""


class VerificationError(SecateurError, RuntimeError):
    """The small model and the masked model disagree; the model has been given back untouched."""


class PersistenceError(SecateurError, ValueError):
    """A model that cannot be saved, or a file that is no saved model, or one of another model."""


class OptimizerError(SecateurError, ValueError):
    """An optimizer that does not fit the cut, or whose state cannot follow; it is unchanged."""
