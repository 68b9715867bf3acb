"""Recipes as nobody should write them, and what `read_recipe` makes of them."""

from __future__ import annotations

import json
import os
import random
import re
from pathlib import Path
from typing import Any

from adaptkit.conditionals import CONDITIONALS
from adaptkit.reading.document import read_document
from adaptkit.recipe import dump_recipe, parse_recipe, read_recipe
from adaptkit.techniques import TECHNIQUES

from .texts import damage, encode, scramble
from .trees import ODD, mutate

RECIPES = Path(__file__).parents[2] / "recipes"


class RecipeReader:
    """Made-up recipes: the shipped ones changed as trees, as lines or as bytes, and some from nothing.

    Args:
        folder: For the files.
    """

    def __init__(self, folder: Path) -> None:
        self._file = folder / "recipe.yaml"
        data = folder / "data"
        data.mkdir(exist_ok=True)
        os.environ["ADAPTKIT_DATA"] = str(data)
        self._texts = [path.read_text(encoding="utf-8") for path in sorted(RECIPES.glob("*.yaml"))]
        for name in {name for text in self._texts for name in re.findall(r"\$\{ADAPTKIT_DATA\}/([^\s,}]+)", text)}:
            (data / name).parent.mkdir(parents=True, exist_ok=True)
            (data / name).touch()
        self._trees = [read_document(text, "recipe", folder, os.environ).data for text in self._texts]
        self._entries = [
            {key: [{name: kind.model_construct().model_dump(mode="json", warnings=False)}]}
            for key, table in (("steps", TECHNIQUES), ("conditional", CONDITIONALS))
            for name, kind in table.items()
        ]

    def __call__(self, rng: random.Random) -> None:
        """Write one, and read it; what is accepted must come back unchanged from what it is written as."""
        self._file.write_bytes(self._content(rng))
        recipe = read_recipe(self._file, self._options(rng))
        again = parse_recipe(dump_recipe(recipe), folder=self._file.parent)
        if again != recipe:
            raise AssertionError("a recipe is another one after it was written and read")

    def _content(self, rng: random.Random) -> bytes:
        match rng.randrange(8):
            case 0 | 1 | 2 | 3:
                return encode(rng, json.dumps(mutate(rng, self._tree(rng)), ensure_ascii=rng.random() < 0.2))
            case 4 | 5:
                return encode(rng, scramble(rng, rng.choice(self._texts)))
            case 6:
                return damage(rng, rng.choice(self._texts).encode())
            case _:
                return encode(rng, invented(rng))

    def _tree(self, rng: random.Random) -> Any:
        """Take a shipped recipe, or a small one with a step in which every setting is written out."""
        if rng.random() < 0.5:
            return rng.choice(self._trees)
        model: Any = rng.choice(({"zoo": "lenet5_digits"}, {"torchvision": "resnet18"}, {"python": "a.b:c"}))
        head = {"version": 1, "name": "a", "seed": 0, "model": model, "data": {"digits": True}, "steps": []}
        return {**head, **rng.choice(self._entries)}

    def _options(self, rng: random.Random) -> list[str]:
        if rng.random() < 0.8:
            return []
        keys = (
            "steps",
            "0",
            "1",
            "name",
            "seed",
            "data",
            "batch_size",
            "macs",
            "conditional",
            "",
            "model",
            "-1",
            "٣",
            "x",
        )
        path = ".".join(rng.choices(keys, k=rng.randint(1, 4)))
        return [f"{path}{rng.choice('==:')}{json.dumps(rng.choice(ODD))}" for _ in range(rng.randint(1, 2))]


def invented(rng: random.Random) -> str:
    """Write YAML that is no recipe: bombs, depths, lengths, and pieces strung together."""
    size = rng.choice((10, 100, 1000, 20_000))
    match rng.randrange(8):
        case 0:
            return bomb(rng.randint(2, 30), rng.randint(2, 9))
        case 1:
            return rng.choice("[{") * size
        case 2:
            return "".join(f"{' ' * depth}a:\n" for depth in range(min(size, 1000)))
        case 3:
            return "a: &a [*a]\nversion: *a\nsteps: *a\n" + "x: *a\n" * rng.randint(0, 50)
        case 4:
            return "version: " + rng.choice("9-x'\"é ") * size
        case 5:
            return "steps:\n" + "- prune.structured\n" * min(size, 3000)
        case 6:
            return "".join(f"k{number}: {number}\n" for number in range(size))
        case _:
            return "".join(rng.choices("abc:-?[]{},#&*!|>'\"%@` \n\t0.~<=\\$", k=min(size, 1000)))


def bomb(levels: int, width: int) -> str:
    """Write a text of a few lines that means width ** levels values."""
    lines = ["a0: &a0 [x, x]"]
    lines += [f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * width)}]" for level in range(1, levels)]
    return "\n".join([*lines, f"steps: *a{levels - 1}"])
