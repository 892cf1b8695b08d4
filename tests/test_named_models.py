"""The oracle on models that nobody here wrote: torchvision, timm, transformers."""

import pytest
import torch

from named_models import NAMED, SLOW, Named
from oracle import check_cut, count, outputs, random_labels, randomise, snapshot_of
from secateur import PruningIR

NAMES = [pytest.param(name, marks=pytest.mark.slow if name in SLOW else ()) for name in NAMED]


@pytest.fixture(scope="module", params=NAMES)
def named(request: pytest.FixtureRequest) -> tuple[Named, PruningIR]:
    """A model with every parameter randomised, and its IR. Tests only read them."""
    torch.manual_seed(0)
    made = NAMED[request.param]()
    randomise(made.model).eval()
    return made, snapshot_of(made.model, made.args, made.kwargs)


# Detectors decide how many boxes they put out: there the comparison is the library's own.
def decides(made: Named) -> bool:
    return type(made.model).__module__.startswith("torchvision.models.detection")


@pytest.mark.parametrize("share", [0.5, None], ids=["half", "uneven"])
def test_exact_groups_keep_outputs(named: tuple[Named, PruningIR], share: float | None) -> None:
    made, ir = named
    labels = random_labels([group for group in ir.groups() if group.exact], 0, share)
    assert labels
    if decides(made):
        report = ir.prune(labels=labels).report
        assert report is not None
        assert report.verification is not None
        assert report.verification.error < 1e-4
    else:
        check_cut(ir, labels, made.args, made.kwargs, exact=True)


def test_half_of_every_group_leaves_an_ordinary_module(named: tuple[Named, PruningIR]) -> None:
    made, ir = named
    small = ir.prune(labels=random_labels(ir.groups(), 1), verify=False).model
    assert type(small) is type(made.model)
    assert count(small) < 0.5 * count(made.model)
    for path, result in outputs(small, made.args, made.kwargs).items():
        assert bool(result.isfinite().all()), path


def test_almost_all_parameters_are_in_reach(named: tuple[Named, PruningIR]) -> None:
    _, ir = named
    assert ir.reach() >= 0.95
    assert not ir.snapshot().analysis.opaque


def test_the_model_itself_is_only_read(named: tuple[Named, PruningIR]) -> None:
    made, ir = named
    before = {name: value.clone() for name, value in made.model.state_dict().items()}
    ir.prune(labels=random_labels(ir.groups(), 2), verify=False)
    after = made.model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
