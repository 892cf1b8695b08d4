"""The program between a simulation and a file: what is folded, stored and left."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from deployable import Quantised, images, network
from secateur._errors import DeploymentError
from secateur.deploy._program import program_of
from secateur.operators import dequantize, fake_quantize, quantize


def test_it_computes_what_the_simulation_does(quantised: Quantised) -> None:
    program = program_of(quantised.simulated, (images(4),))
    x = images(16, 7)
    with torch.no_grad():
        wanted, made = quantised.simulated(x), program(x)
    assert (wanted - made).norm() < 1e-2 * wanted.norm()


def test_batch_norm_is_folded_in_float64(quantised: Quantised) -> None:
    program = program_of(quantised.original, (images(4),))
    assert not [node for node in program.graph.nodes if "batch_norm" in str(node.target)]
    x = images(16, 7)
    with torch.no_grad():
        torch.testing.assert_close(program(x), quantised.original(x), atol=1e-5, rtol=1e-5)


def test_negative_factors_turn_the_integers(quantised: Quantised) -> None:
    assert bool((network().block.zwei.weight < 0).any()), "the fixture has such channels"
    program = program_of(quantised.simulated, (images(4),))
    scales = [value for name, value in program.state_dict().items() if "scale" in name]
    assert scales
    assert all(bool((scale > 0).all()) for scale in scales)


class Narrow(nn.Module):
    """A tensor on a grid of 4 bits."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return fake_quantize(x, torch.tensor(0.5), torch.tensor(2), -8, 7) * 2


def test_fewer_bits_keep_their_ends() -> None:
    x = torch.linspace(-20, 20, 81).reshape(1, -1).repeat(3, 1)
    program = program_of(Narrow().eval(), (x,))
    torch.testing.assert_close(program(x), Narrow()(x), rtol=0, atol=0)


class Wide(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return fake_quantize(x, torch.tensor(0.5), torch.tensor(0), -32768, 32767)


def test_more_than_8_bits_are_refused() -> None:
    with pytest.raises(DeploymentError, match="8 bits are the most"):
        program_of(Wide(), (torch.ones(2, 2),))


class Restless(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return fake_quantize(x, x.abs().amax() / 127, torch.zeros((), dtype=torch.int32), -127, 127)


def test_a_scale_that_depends_on_the_input_is_refused() -> None:
    with pytest.raises(DeploymentError, match="computed from the inputs"):
        program_of(Restless(), (torch.ones(2, 2),))


@pytest.mark.parametrize("axis", [None, 1])
def test_integers_and_back_are_fake_quantisation(axis: int | None) -> None:
    x = torch.randn(4, 3, 5) * 3
    scale = torch.tensor(0.05) if axis is None else torch.tensor([0.05, 0.1, 0.02])
    zero = torch.full(scale.shape, 128, dtype=torch.uint8)
    wanted = fake_quantize(x, scale, zero, 0, 255, axis)
    made = dequantize(quantize(x, scale, zero, axis), scale, zero, axis)
    # Multiplying by 1 / scale and dividing by scale may differ where a value is half way between two steps.
    assert float((wanted == made).double().mean()) > 0.95
    assert bool(((wanted - made).abs() <= float(scale.max()) * 1.001).all())


def test_fake_quantisation_has_the_gradient_of_the_identity_inside_the_range() -> None:
    x = torch.tensor([-1.0, 0.3, 9.0], requires_grad=True)
    fake_quantize(x, torch.tensor(0.5), torch.tensor(0), -8, 7).sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [1.0, 1.0, 0.0]
