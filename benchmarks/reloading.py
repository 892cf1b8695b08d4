"""How pruned models of transformers come back from a file: by their config, or by our recipe.

    python benchmarks/reloading.py                  # the families of the zoo's list
    python benchmarks/reloading.py llama whisper    # some

Half of every group is cut at the same ratio everywhere, heads rather than their features. Then the small
model is written with ``save_pretrained`` and read with ``from_pretrained``; and written with
``secateur.save`` and read with ``secateur.load``. It is back if its outputs are the same bit for bit.
"""

from __future__ import annotations

import argparse
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from models import Loaded, load
from processes import version_line
from torch import nn
from zoo_models import LISTED


def reload(name: str) -> tuple[str, bool, bool]:
    """What became of the config, and whether the model came back by it and by the recipe."""
    import secateur

    loaded = load(f"transformers/{name}")
    ir = secateur.PruningIR(loaded.model, attention="heads")
    ir.create_snapshot("main", loaded.args, loaded.kwargs)
    small = ir.prune(labels=secateur.UniformLabelSelector(pruning_ratio=0.5).select(ir))
    report = small.report
    with tempfile.TemporaryDirectory() as folder:
        by_config = _comes_back(small.model, loaded, lambda model: _by_config(model, folder))
        path = Path(folder) / "small.safetensors"
        by_recipe = _comes_back(small.model, loaded, lambda model: _by_recipe(model, loaded.model, path))
    return report.config, by_config, by_recipe


def _by_config(model: Any, folder: str) -> nn.Module:
    model.save_pretrained(folder)
    return type(model).from_pretrained(folder)


def _by_recipe(model: nn.Module, original: Any, path: Path) -> nn.Module:
    import secateur

    secateur.save(model, path)
    return secateur.load(lambda: type(original)(original.config), path)


def _comes_back(model: nn.Module, loaded: Loaded, way: Callable[[nn.Module], nn.Module]) -> bool:
    """Whether a model is the same, bit for bit, after it was written and read."""
    try:
        again = way(model).eval()
    except Exception:  # a config that builds other shapes: there the other way is for
        return False
    wanted, found = (_outputs(m, loaded) for m in (model, again))
    return all(torch.equal(a, b) for a, b in zip(wanted, found, strict=True))


def _outputs(model: nn.Module, loaded: Loaded) -> list[torch.Tensor]:
    result = Loaded(model, loaded.args, loaded.kwargs).forward()
    return [value for value in result.to_tuple() if isinstance(value, torch.Tensor)]


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    listed = [name.partition("/")[2] for name in LISTED if name.startswith("transformers/")]
    parser.add_argument("names", nargs="*", default=listed)
    names = parser.parse_args().names
    warnings.simplefilter("ignore")  # of transformers, about weights that are not those it expects
    torch.set_num_threads(1)
    rows = {}
    print(f"{version_line()}\n\n| model | `from_pretrained` | `secateur.load` | config |\n|---|---|---|---|")
    for name in names:
        config, *back = rows[name] = reload(name)
        first = config.partition("\n")[0].removeprefix("config: ").replace("|", "\\|")
        print(f"| {name} | {' | '.join('yes' if b else 'no' for b in back)} | {first[:150]} |", flush=True)
    by_config, by_recipe = (sum(row[n] for row in rows.values()) for n in (1, 2))
    print(f"\n{len(rows)} models: {by_config} by their config, {by_recipe} by the recipe.")


if __name__ == "__main__":
    main()
