"""The two layer-wise distillers of NNI."""

from __future__ import annotations

import torch
from torch import Tensor

from ..._errors import ConfigError, DistillationError
from ._distiller import TeacherModelBasedDistiller
from ._links import Link
from ._taps import Tap


class DynamicLayerwiseDistiller(TeacherModelBasedDistiller):
    """Every target is like the nearest of the targets that it is linked to.

    ``D`` of a target is the smallest of its distances to the linked targets of the teacher, so with several
    links the student finds out itself which layer of a deeper teacher to be like. Student and teacher have
    equally many features there. Source: the dynamic matching of Xia, Zhong, Chen, "Structured pruning learns
    compact and accurate models" (CoFi, ACL 2022), loss by loss, as in NNI. Arguments: see
    :class:`TeacherModelBasedDistiller`.

    Example:
        >>> import copy
        >>> from torch import nn
        >>> _ = torch.manual_seed(0)
        >>> net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
        >>> config_list = [
        ...     {"op_names": ["0"], "lambda": 0.5},
        ...     {"op_names": ["2"], "apply_method": lambda student, teacher: (student - teacher).abs().max()},
        ... ]
        >>> teacher = copy.deepcopy(net)
        >>> predict = lambda batch, teacher: teacher(batch)
        >>> distiller = DynamicLayerwiseDistiller(
        ...     net, config_list, None, teacher, predict, origin_loss_lambda=0
        ... )
        >>> net[2].bias.data += 3.0
        >>> x = torch.randn(5, 4)
        >>> round(distiller.patch_loss(net(x).mean(), x).item(), 4)
        3.0
        >>> distiller.unwrap_model()
    """

    def _fit(self, link: Link, student: Tensor, teacher: Tensor, at: Tap) -> None:
        ours, theirs = link.features(student, teacher, at)
        if ours != theirs:
            raise DistillationError(
                f"{link.student.where} has {ours} features and {at.where} {theirs}: take "
                "Adaptive1dLayerwiseDistiller, which learns a projection from one to the other, or "
                "apply_method 'attention_transfer', which sums over features"
            )

    def _distance(self, link: Link, student: Tensor, teachers: list[Tensor]) -> Tensor:
        return torch.stack([link.distance(student, teacher) for teacher in teachers]).min()


class Adaptive1dLayerwiseDistiller(TeacherModelBasedDistiller):
    """Every target is like one of the teacher, seen through a learned projection where widths differ.

    Where student and teacher have another number of features, ``D`` is the distance between
    ``projection(student)`` and the teacher, with a linear map of the features: the last dimension of tokens,
    the channels of images. It is made before training if ``dummy_input`` or :meth:`track_forward` shows the
    shapes, by the first batch otherwise; trained in the optimizer group that trains the module; never a part
    of the model. Source: Romero et al., "FitNets: hints for thin deep nets" (ICLR 2015). Arguments: see
    :class:`TeacherModelBasedDistiller`; ``link`` names one module.

    Example:
        >>> from torch import nn
        >>> net = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3))
        >>> teacher = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 3))
        >>> predict = lambda batch, teacher: teacher(batch)
        >>> distiller = Adaptive1dLayerwiseDistiller(net, [{"op_types": ["ReLU"]}], None, teacher, predict)
        >>> distiller.track_forward(torch.randn(2, 4))
        >>> [tuple(parameter.shape) for parameter in distiller.parameters()]
        [(16, 6), (16,)]
        >>> distiller.unwrap_model()
    """

    def _check_links(self) -> None:
        wrong = [link.target for link in self.links if len(link.teachers) > 1]
        if wrong:
            raise ConfigError([
                f"entry {target.entry}, key 'link' ({list(target.settings.link)}): one module is expected; "
                f"DynamicLayerwiseDistiller takes several [{target.path}]"
                for target in wrong
            ])  # fmt: skip

    def _fit(self, link: Link, student: Tensor, teacher: Tensor, at: Tap) -> None:
        ours, theirs = link.features(student, teacher, at)
        if ours == theirs:
            return
        path = link.target.path
        projection = self._projections.of(path)
        if projection is None:
            self._projections.add(path, ours, theirs, student.device)
            self._train_projection(link)
        elif (projection.in_features, projection.out_features) != (ours, theirs):
            raise DistillationError(
                f"{link.student.where} has {ours} features and {at.where} {theirs}, and before they had "
                f"{projection.in_features} and {projection.out_features}: one projection cannot serve both"
            )

    def _distance(self, link: Link, student: Tensor, teachers: list[Tensor]) -> Tensor:
        (teacher,) = teachers
        return link.distance(self._projections.project(link.target.path, student, link.dim(student)), teacher)
