"""How far a student's tensor is from the teacher's: one function a way of saying it.

``student`` and ``teacher`` have the batch in dimension 0 and their features in ``dim``. Half-precision values
are compared in float32, so a loss under autocast neither overflows nor loses small differences.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import Tensor
from torch.nn import functional as F

TEMPERATURE = 2.0
"""Of ``"kl"`` as an ``apply_method``; NNI's."""

LossFunction = Callable[[Tensor, Tensor], Tensor]
"""``f(student, teacher) -> loss``, a number; what a user gives as ``apply_method``."""


def mse(student: Tensor, teacher: Tensor, dim: int = -1) -> Tensor:
    """Mean squared difference, over all elements; FitNets' hints (Romero et al., ICLR 2015).

    >>> import torch
    >>> mse(torch.tensor([[1.0, 2.0]]), torch.tensor([[1.0, 4.0]]))
    tensor(2.)
    """
    return F.mse_loss(student.float(), teacher.float())


def kl(student: Tensor, teacher: Tensor, dim: int = -1, temperature: float = TEMPERATURE) -> Tensor:
    """Divergence of the softened distributions over ``dim``, in the mean over rows.

    ``T**2 * mean over rows of KL(softmax(teacher / T) || softmax(student / T))`` with ``T`` the temperature.
    A row is everything along ``dim``: one for each sample of ``(batch, classes)``, one for each token of
    ``(batch, tokens, classes)``. Where NNI divides by the batch alone, so that its loss grows with the number
    of tokens, this one does not. Source: Hinton, Vinyals, Dean, "Distilling the knowledge in a neural
    network" (2015).

    >>> import torch
    >>> student, teacher = torch.zeros(1, 2), torch.tensor([[0.0, 2 * torch.log(torch.tensor(3.0))]])
    >>> round(float(kl(student, teacher)), 3)  # 4 * (1/4 ln 1/2 + 3/4 ln 3/2)
    0.523
    """
    ours = F.log_softmax(student.float() / temperature, dim)
    wanted = F.log_softmax(teacher.float() / temperature, dim)
    rows = F.kl_div(ours, wanted, reduction="none", log_target=True).sum(dim)
    return temperature**2 * rows.mean()


def cosine(student: Tensor, teacher: Tensor, dim: int = -1) -> Tensor:
    """One minus the cosine between the features, in the mean over all positions: from 0 to 2.

    >>> import torch
    >>> cosine(torch.tensor([[3.0, 0.0], [0.0, 1.0]]), torch.tensor([[1.0, 0.0], [1.0, 0.0]]))
    tensor(0.5000)
    """
    return (1 - F.cosine_similarity(student.float(), teacher.float(), dim=dim)).mean()


def attention_transfer(student: Tensor, teacher: Tensor, dim: int = -1) -> Tensor:
    """Squared distance of the attention maps, in the mean over samples: from 0 to 2.

    The map of a sample is the sum of squares over features at each of its positions, divided by its Euclidean
    norm; so student and teacher may differ in their number of features. Source: Zagoruyko and Komodakis,
    "Paying more attention to attention" (ICLR 2017), activation-based, with the square of equation 2's norm,
    as in the authors' own training code.

    >>> import torch
    >>> student, teacher = torch.tensor([[[2.0, 0.0]]]), torch.tensor([[[0.0, 1.0], [0.0, 1.0]]])
    >>> attention_transfer(student, teacher, dim=1)  # maps [1, 0] and [0, 1]
    tensor(2.)
    """
    ours, wanted = (F.normalize(x.float().square().sum(dim).flatten(1), dim=1) for x in (student, teacher))
    return (ours - wanted).square().sum(1).mean()


LOSSES: Mapping[str, Callable[[Tensor, Tensor, int], Tensor]] = {
    "mse": mse,
    "kl": kl,
    "cosine": cosine,
    "attention_transfer": attention_transfer,
}


def needs_equal_features(method: str | LossFunction) -> bool:
    """Whether a loss compares features one by one, so that both sides need as many."""
    return method != "attention_transfer"
