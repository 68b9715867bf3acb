"""A recipe: what to make of which model, with which data; YAML to `Recipe` and back.

Whatever is wrong with a recipe is found before any work and told at once, a line a mistake, with the file, the line and
the key. Nothing in here loads torch.
"""

from __future__ import annotations

import io
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, SerializeAsAny, field_serializer, field_validator
from ruamel.yaml import YAML
from ruamel.yaml.nodes import ScalarNode
from ruamel.yaml.representer import SafeRepresenter

from adaptkit import conditionals, techniques
from adaptkit.conditional.base import Conditional, misplaced
from adaptkit.errors import DataError, RecipeError
from adaptkit.metrics.registry import check_names
from adaptkit.reading.document import LONGEST, Document, read_document
from adaptkit.reading.explain import check
from adaptkit.reading.metrics import read_metrics
from adaptkit.reading.overrides import apply_overrides
from adaptkit.reading.problem import in_order, shown
from adaptkit.reading.references import names_python, resolve_references
from adaptkit.reading.steps import read_entries, read_steps
from adaptkit.reading.variables import protect
from adaptkit.specs import WRITABLE_FOLDER, DataSpec, ExportSpec, GateSpec, ModelSpec, ProfileSpec, Section
from adaptkit.studies import Asked, metrics_of
from adaptkit.study.base import Study
from adaptkit.technique import Technique

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


class Recipe(Section):
    """A whole recipe: the model, the data, the steps, and what is asked of the result."""

    version: Literal[1] = Field(description="The version of the recipe format: 1.")
    name: str = Field(description="Names the run folder: letters, digits, '.', '_' and '-'.")
    seed: Annotated[int, Field(ge=0, lt=2**32)] = Field(0, description="Every random choice derives from it.")
    model: ModelSpec = Field(description="The trained model to start from.")
    data: DataSpec = Field(description="The data to train, calibrate and test with.")
    steps: tuple[SerializeAsAny[Technique], ...] = Field(description="The techniques, in the order they are applied.")
    conditional: tuple[SerializeAsAny[Conditional], ...] = Field(
        (), description="What lets easy samples skip work, around the model that the steps leave, from the inside out."
    )
    export: ExportSpec = Field(default=ExportSpec(), description="How the ONNX file is written.")
    profile: ProfileSpec = Field(default=ProfileSpec(), description="What is measured.")
    metrics: tuple[str | SerializeAsAny[Study], ...] = Field(
        (),
        description="Measured over the test split, of baseline and result, each with its 95 % interval.",
    )
    gates: GateSpec = Field(default=GateSpec(), description="What the result must reach.")
    folder: str | None = Field(
        None,
        description="Where the modules of `python:` are looked for first; the recipe's own folder by default.",
        json_schema_extra=WRITABLE_FOLDER,
    )
    lock: dict[str, Any] = Field({}, description="Facts of a run, written into its lock file.")

    @field_validator("name")
    @classmethod
    def _folder_name(cls, name: str) -> str:
        if _NAME.fullmatch(name) is None:
            raise ValueError(
                f"expected up to 100 letters, digits, '.', '_', '-', the first a letter or digit; got {shown(name)}"
            )
        return name

    @field_validator("metrics")
    @classmethod
    def _known_names(cls, metrics: tuple[Asked, ...]) -> tuple[Asked, ...]:
        try:
            check_names(metrics_of(metrics))
        except DataError as error:
            raise ValueError(str(error)) from None
        return metrics

    @field_serializer("steps", "conditional", "metrics")
    def _as_mappings(self, entries: tuple[Technique | Conditional | Asked, ...]) -> list[str | dict[str, Any]]:
        return [entry if isinstance(entry, str) else {entry.name: entry.model_dump(mode="json")} for entry in entries]


def read_recipe(path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe file, or the lock file of a run.

    Relative paths in the file are relative to its folder, those in `overrides` to the current folder; in the Recipe
    they are absolute.

    Args:
        path: A YAML file.
        overrides: Values to replace, such as "steps.0.macs=0.4".

    Raises:
        RecipeError: The file cannot be read, or something in it is wrong; holds every problem found.
    """
    path = Path(path)
    try:
        text = _text_of(path)
    except FileNotFoundError:
        raise RecipeError([f"{path}: no such file"]) from None
    except UnicodeDecodeError as error:
        raise RecipeError([f"{path}: not a recipe: byte {error.start} is not UTF-8 text"]) from None
    except OSError as error:
        raise RecipeError([f"{path}: cannot be read: {error.strerror}"]) from None
    return parse_recipe(text, str(path), overrides, folder=path.parent)


def _text_of(path: Path) -> str:
    """Read no more of a file than a recipe can have: it may be of any size, or have no end."""
    most = 4 * LONGEST
    with path.open("rb") as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise RecipeError([f"{path}: not a recipe: it has over {most:,} bytes"])
    return content.decode("utf-8-sig")


def parse_recipe(
    text: str,
    source: str = "recipe",
    overrides: Sequence[str] = (),
    env: Mapping[str, str] = os.environ,
    folder: str | Path = ".",
) -> Recipe:
    """Read the text of a recipe.

    Args:
        text: YAML 1.2.
        source: What to call the text in messages.
        overrides: Values to replace, such as "steps.0.macs=0.4".
        env: The variables for `${NAME}` and `${NAME:-default}`.
        folder: What relative paths are relative to.

    Raises:
        RecipeError: Something is wrong; holds every problem found.

    Example:
        >>> text = "{version: 1, name: tiny, model: {zoo: lenet5_digits}, data: {digits: true}, steps: []}"
        >>> parse_recipe(text).data.batch_size
        128
        >>> parse_recipe(text, overrides=["data.batch_sise=64"])
        Traceback (most recent call last):
        adaptkit.errors.RecipeError: --set data.batch_sise=64: data.batch_sise: unknown key ...
    """
    document = read_document(text, source, Path(folder), env)
    recipe = None
    if not document.problems or isinstance(document.data, dict):
        recipe = _recipe(document, overrides)
    if document.problems or recipe is None:
        raise RecipeError(in_order(document.problems))
    return recipe


def _recipe(document: Document, overrides: Sequence[str]) -> Recipe | None:
    data = document.data
    if not isinstance(data, dict):
        found = "an empty text" if data is None else shown(data)
        document.add((), f"a recipe is a mapping with {', '.join(_required())}; got {found}")
        return None
    apply_overrides(document, overrides)
    # A section left empty says nothing, as one left out.
    data = {key: value for key, value in data.items() if value is not None or key not in _optional()}
    if names_python([data.get(key) for key in ("model", "data", "steps", "conditional")]):
        data.setdefault("folder", str(document.place(()).folder))
    resolve_references(document, Recipe, data, ())
    steps = read_steps(document, data["steps"], techniques.TECHNIQUES) if "steps" in data else ()
    wraps = _conditional(document, data.get("conditional", []), steps)
    metrics = read_metrics(document, data.get("metrics", []))
    lists: dict[str, Any] = {key: [] for key in ("steps", "conditional", "metrics") if key in data}
    recipe, mistakes = check(Recipe, data | lists)
    for mistake in mistakes:
        document.add(mistake.path, mistake.message)
    if not isinstance(recipe, Recipe):
        return None
    return recipe.model_copy(update={"steps": steps, "conditional": wraps, "metrics": metrics})


def _conditional(document: Document, entries: Any, steps: tuple[Technique, ...]) -> tuple[Conditional, ...]:
    found = read_entries(document, entries, conditionals.CONDITIONALS, "conditional")
    for index, problem in misplaced(found, steps):
        document.add(("conditional", index), problem)
    return tuple(entry for entry in found if entry is not None)


def _required() -> list[str]:
    return [key for key, field in Recipe.model_fields.items() if field.is_required()]


def _optional() -> list[str]:
    return [key for key, field in Recipe.model_fields.items() if not field.is_required()]


class _Representer(SafeRepresenter):
    """Quotes text with line breaks and other invisible characters, some of which YAML would read as a space."""

    def represent_str(self, data: str) -> ScalarNode:
        """Write a text plainly where it shows what it is."""
        node: ScalarNode = self.represent_scalar(
            "tag:yaml.org,2002:str", data, style=None if data.isprintable() else '"'
        )
        return node


_Representer.add_representer(str, _Representer.represent_str)


def dump_recipe(recipe: Recipe) -> str:
    r"""Write a recipe as YAML in which every value stands, defaults too; reading it gives an equal recipe.

    Example:
        >>> text = "{version: 1, name: tiny, model: {zoo: lenet5_digits}, data: {digits: true}, steps: []}"
        >>> "seed: 0\n" in dump_recipe(parse_recipe(text))
        True
    """
    yaml = YAML(typ="safe", pure=True)
    yaml.Representer = _Representer
    yaml.default_flow_style = False
    yaml.allow_unicode = True
    yaml.width = 100
    yaml.representer.sort_base_mapping_type_on_output = False
    stream = io.StringIO()
    yaml.dump(_protected(recipe.model_dump(mode="json")), stream)
    return stream.getvalue()


def _protected(value: Any) -> Any:
    if isinstance(value, str):
        return protect(value)
    if isinstance(value, dict):
        return {key: _protected(inner) for key, inner in value.items()}
    return [_protected(inner) for inner in value] if isinstance(value, list) else value
