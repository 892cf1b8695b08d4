"""Calls that lead to the rules of ``axes/rules/elementwise.py``."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from ._tensors import ints, mask, positive, t, z

aten = torch.ops.aten


def _names(text: str) -> list[str]:
    return text.split()


UNARY = _names(
    """
    relu relu6 leaky_relu rrelu elu celu selu gelu silu mish hardswish hardshrink softshrink tanh
    tan sin sinh asinh atan erf expm1 special_i1 special_i1e special_bessel_j1 neg abs sgn sign
    square floor ceil round trunc frac nan_to_num deg2rad rad2deg angle conj_physical sigmoid
    hardsigmoid log_sigmoid softplus exp exp2 cos cosh erfc digamma sinc isnan isinf isneginf
    isposinf isfinite isreal signbit logical_not i0 special_erfcx special_log_ndtr
    special_bessel_j0 special_i0e special_modified_bessel_i0 special_modified_bessel_i1 real clone
    detach detach_copy alias alias_copy contiguous lift_fresh lift lift_fresh_copy resolve_conj
    resolve_neg _neg_view _neg_view_copy _to_copy reciprocal lgamma
    """
)
POSITIVE = _names(
    """
    asin acos atanh erfinv log1p sqrt log log2 log10 rsqrt logit special_entr special_ndtri
    special_modified_bessel_k0 special_modified_bessel_k1 poisson bernoulli
    """
)
COMPLEX = _names(
    """
    imag conj_physical _conj _conj_copy _conj_physical resolve_conj angle abs exp
    """
)
BINARY = _names(
    """
    add sub rsub maximum minimum fmax fmin hypot logical_or logical_xor logical_and mul multiply
    div divide true_divide floor_divide remainder fmod copysign eq ne lt le gt ge logaddexp
    logaddexp2 nextafter xlogy special_xlog1py heaviside isclose atan2 complex polar ldexp
    """
)
WITH_NUMBER = _names(
    """
    add sub rsub mul multiply div divide true_divide floor_divide remainder fmod copysign eq ne lt
    le gt ge xlogy special_xlog1py special_zeta
    """
)
BITWISE = _names(
    """
    bitwise_or bitwise_xor bitwise_and __or__ __xor__ __and__ __ior__ __ixor__ __iand__
    bitwise_left_shift bitwise_right_shift __lshift__ __rshift__ __ilshift__ __irshift__
    """
)
DRAWN = _names(
    """
    uniform normal_functional random exponential log_normal cauchy
    """
)


def unary() -> None:
    """One tensor in, one of the same shape out."""
    for name in UNARY:
        getattr(aten, name)(t(3, 4))
    for name in POSITIVE:
        getattr(aten, name)(positive(3, 4))
    for name in COMPLEX:
        getattr(aten, name)(z(3, 4))
    torch.acosh(positive(3, 4) + 2)
    torch.bitwise_not(ints(9, 3, 4))
    torch.polygamma(1, positive(3, 4))
    positive(3, 4).polygamma_(1)
    torch.mvlgamma(positive(3, 4) + 4, 2)
    torch.round(t(3, 4), decimals=2)
    F.gelu(t(3, 4), approximate="tanh")
    F.threshold(t(3, 4), 0.1, 20.0)
    F.threshold(t(3, 4), -0.1, 20.0)
    F.threshold(t(3, 4), 0.1, 0.0)
    for dropout in (F.dropout, F.alpha_dropout, F.feature_alpha_dropout, F.dropout1d):
        dropout(t(3, 4, 5), 0.5, training=False)
        dropout(t(3, 4, 5), 0.5, training=True)


def drawn() -> None:
    """Random values: only shapes can be judged."""
    for name in DRAWN:
        getattr(aten, name)(t(3, 4))
    aten.random(t(3, 4), 7)
    aten.random(t(3, 4), 2, 7)
    aten.geometric(positive(3, 4), 0.5)
    t(3, 4).normal_()
    t(3, 4).bernoulli_(0.5)
    aten.bernoulli(t(3, 4), 0.5)
    t(3, 4).bernoulli_(positive(3, 4))
    aten.bernoulli(t(3, 4), positive(3, 4))


def conversions() -> None:
    """Other types, other places, other tensors' types."""
    t(3, 4).to(torch.float32)
    t(3, 4).to("cpu", torch.float32)
    aten.to.other(t(3, 4), torch.zeros(1))
    t(3, 4).float()
    aten.to.dtype_layout(t(3, 4), dtype=torch.float32)
    t(3, 4).type_as(torch.zeros(1))
    t(3, 4).copy_(t(4))
    t(3, 4).copy_(torch.zeros(3, 4))
    aten.copy(t(3, 4), t(4))
    aten.fill(t(3, 4), 0)
    aten.fill(t(3, 4), 2.0)
    aten.fill(t(3, 4), t())
    aten.zero(t(3, 4))


def with_companions() -> None:
    """A second result beside the first."""
    torch.native_dropout(t(3, 4), 0.5, False)
    torch.native_dropout(t(3, 4), 0.5, True)
    aten.log_sigmoid_forward(t(3, 4))
    torch.frexp(t(3, 4))


def clamps() -> None:
    """Bounds on both sides of zero, and that leave zero out."""
    x = t(3, 4)
    for low, high in ((-0.5, 0.5), (0.1, 0.5), (None, -0.1), (0, None)):
        x.clamp(low, high)
        x.clip(low, high)
    x.clamp(-positive(4), positive(3, 1))
    x.clip(min=t(3, 4))
    x.clamp_min(0.0)
    x.clamp_min(0.2)
    aten.clamp_min(x, t(4))
    x.clamp_max(0.2)
    x.clamp_max(-0.2)
    aten.clamp_max(x, t(4))
    F.hardtanh(x)
    F.hardtanh(x, 0.1, 0.5)


def binary() -> None:
    """Two tensors, broadcast; a tensor and a number."""
    for name in BINARY:
        getattr(aten, name)(t(3, 4), t(3, 4))
        getattr(aten, name)(t(3, 4), t(4))
        getattr(aten, name)(t(2, 1, 4), t(3, 1))
    for name in WITH_NUMBER:
        getattr(aten, name)(t(3, 4), 2.5)
    for name in ("add", "sub", "rsub"):
        getattr(aten, name)(t(3, 4), 0)
        getattr(aten, name)(t(3, 4), t(3, 4), alpha=2)
    for name in ("igamma", "igammac", "special_zeta"):
        getattr(aten, name)(positive(3, 4) + 1, positive(4))
    for name in ("xlogy", "special_xlog1py", "special_zeta", "remainder"):
        getattr(aten, name)(2.5, positive(3, 4))
    for rounding in (None, "floor", "trunc"):
        torch.div(t(3, 4), t(4), rounding_mode=rounding)
        torch.divide(t(3, 4), 2.0, rounding_mode=rounding)
        aten.div(t(3, 4), 2.0, rounding_mode=rounding)
        aten.divide(t(3, 4), t(4), rounding_mode=rounding)
    aten.ldexp(t(3, 4), ints(4, 3, 4))
    aten.ldexp_(t(3, 4), t(3, 4))
    t(3, 4).floor_divide_(t(4))
    x = t(3, 4)
    torch.mul(x, x)


def numbers() -> None:
    """A tensor and a number, by the overloads that say so."""
    for name in ("mul", "multiply", "div", "divide", "true_divide", "floor_divide"):
        getattr(aten, name).Scalar(t(3, 4), 2.5)
    for name in ("eq", "ne", "lt", "le", "gt", "ge"):
        for number in (2.5, 0, -1):
            getattr(aten, name)(t(3, 4), number)
    for name in ("add", "sub", "rsub"):
        for number in (2.5, 0):
            getattr(aten, name).Scalar(t(3, 4), number)
    for rounding in (None, "floor", "trunc"):
        aten.div.Scalar_mode(t(3, 4), 2.5, rounding_mode=rounding)
        aten.divide.Scalar_mode(t(3, 4), 2.5, rounding_mode=rounding)


def powers() -> None:
    """Exponents that keep zeros, and others."""
    for exponent in (2, 0.5, -1, 0, 2 + 1j):
        torch.pow(positive(3, 4), exponent)
        torch.float_power(positive(3, 4), exponent)
    torch.pow(positive(3, 4), t(4))
    torch.pow(2.0, t(3, 4))
    torch.float_power(positive(3, 4), t(4))
    torch.float_power(2.0, t(3, 4))
    for name in ("pow_", "float_power_"):
        getattr(aten, name)(positive(3, 4), 2)
        getattr(aten, name)(positive(3, 4), t(4))


def bitwise() -> None:
    """Integers and booleans."""
    for name in BITWISE:
        packet = getattr(aten, name)
        packet(ints(6, 3, 4), ints(6, 3, 4))
        packet(ints(6, 3, 4), 3)
        if not name.startswith("__"):
            packet(ints(6, 3, 4), ints(6, 4))
            packet(3, ints(6, 3, 4))
    torch.gcd(ints(12, 3, 4), ints(12, 4))
    torch.lcm(ints(12, 3, 4), ints(12, 4))
    torch.bitwise_and(mask(3, 4), mask(4))
    torch.bitwise_or(mask(3, 4), mask(4))


def choices() -> None:
    """One of two values at each position."""
    torch.where(mask(3, 4), t(3, 4), t(4))
    torch.where(mask(3, 1), t(3, 4), 0.0)
    torch.where(mask(3, 4), t(3, 4), 2.0)
    torch.where(mask(3, 4), 0.0, t(3, 4))
    torch.where(mask(3, 4), 2.0, 3.0)
    t(3, 4).masked_fill(mask(4), 0)
    t(3, 4).masked_fill(mask(3, 1), 3.0)
    t(3, 4).masked_fill(mask(3, 4), t())
    t(3, 1).masked_fill(mask(4), 0)
    torch.lerp(t(3, 4), t(4), 0.3)
    torch.lerp(t(3, 4), t(3, 4), positive(4))
    torch.addcmul(t(3, 4), t(3, 1), t(4), value=2)
    torch.addcdiv(t(3, 4), t(3, 1), positive(4))
    torch.bucketize(t(3, 4), torch.arange(-2.0, 2.0).double())
    torch.bucketize(0.3, torch.arange(-2.0, 2.0).double())
    torch.isin(ints(9, 3, 4), ints(5, 5))
    torch.isin(ints(9, 3, 4), 5)
    torch.isin(5, ints(9, 4))


def activations_with_weights() -> None:
    """PReLU, with one slope and with one a channel."""
    F.prelu(t(3, 4), t(1))
    F.prelu(t(3, 4, 5), t(4))
    F.prelu(t(3), t(1))
    aten.prelu(t(3, 4), t())
    aten._prelu_kernel(t(3, 4, 5), t(1, 4, 1))


def complex_views() -> None:
    """Pairs of numbers as complex ones, and back."""
    for view in (torch.view_as_complex, aten.view_as_complex_copy):
        view(t(3, 4, 2))
    for view in (torch.view_as_real, aten.view_as_real_copy):
        view(z(3, 4))


def losses() -> None:
    """Element-wise losses, kept and reduced."""
    for reduction in ("none", "mean", "sum"):
        F.mse_loss(t(3, 4), t(3, 4), reduction=reduction)
        F.smooth_l1_loss(t(3, 4), t(3, 4), reduction=reduction)
        F.huber_loss(t(3, 4), t(3, 4), reduction=reduction)
        F.soft_margin_loss(t(3, 4), t(3, 4), reduction=reduction)
        F.binary_cross_entropy(positive(3, 4), positive(3, 4), reduction=reduction)
        F.binary_cross_entropy(positive(3, 4), positive(3, 4), positive(4), reduction=reduction)
        F.binary_cross_entropy_with_logits(
            t(3, 4), positive(3, 4), positive(4), reduction=reduction, pos_weight=positive(4)
        )
