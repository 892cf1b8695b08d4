"""Every rule is judged against its operator, on the calls of secateur.testing.samples."""

import functools

import pytest
import torch

from secateur.axes import TABLE
from secateur.axes._table import ABSENT
from secateur.testing import Call, Kind, judge_call
from secateur.testing.samples import sample_calls

pytest.importorskip("torchvision")  # its operators have rules, and samples that call them

# Rules that no sample can reach here, with the reason.
NOT_SAMPLED = {
    "aten._scaled_dot_product_flash_attention.default": "needs CUDA; judged by its CPU sibling",
    "aten._scaled_dot_product_efficient_attention.default": "needs CUDA",
    "aten._scaled_dot_product_cudnn_attention.default": "needs CUDA",
    "aten._scaled_dot_product_fused_attention_overrideable.default": "for out-of-tree devices",
    "aten.cudnn_batch_norm.default": "needs CUDA",
    "aten.miopen_batch_norm.default": "needs ROCm",
    "aten.mm.dtype": "needs CUDA",
    "aten.bmm.dtype": "needs CUDA",
    "aten.addmm.dtype": "needs CUDA",
    "aten.baddbmm.dtype": "needs CUDA",
    "aten.record_stream.default": "needs CUDA",
    "aten.narrow.Tensor": "reads its start: the rule refuses on purpose",
    "MultiheadAttention": "recorded whole; judged by the tests of surgery",
}


@functools.cache
def _samples() -> dict[str, list[Call]]:
    return {_name(operator): calls for operator, calls in sample_calls().items()}


def _name(operator: object) -> str:
    return operator.__name__ if isinstance(operator, type) else str(operator)


@pytest.mark.parametrize("name", sorted({_name(operator) for operator in TABLE} - set(NOT_SAMPLED)))
def test_rule_and_operator_agree(name: str) -> None:
    calls = _samples().get(name)

    assert calls, f"no sample reaches {name}: add a call of it to secateur.testing.samples"
    verdicts = [verdict for call in calls for verdict in judge_call(call)]
    assert verdicts or not any(_has_axes(call) for call in calls)
    assert [str(v) for v in verdicts if v.kind in (Kind.INCORRECT, Kind.OPAQUE)] == []


def _has_axes(call: Call) -> bool:
    tensors = [a for a in call.args if isinstance(a, torch.Tensor)]
    return any(size > 1 for tensor in tensors for size in tensor.shape)


def test_no_reason_without_a_rule() -> None:
    assert {name for name in NOT_SAMPLED if name in _samples()} == set()
    assert set(NOT_SAMPLED) <= {_name(operator) for operator in TABLE}


def test_every_named_operator_exists() -> None:
    # A misspelt name would leave an operator without its rule, and nobody would notice.
    assert ABSENT == []


def test_rules_of_torchvision_wait_for_its_import() -> None:
    import torchvision  # noqa: F401 - its import makes the operators

    from secateur.axes import has_rule

    assert has_rule(torch.ops.torchvision.nms.default)
