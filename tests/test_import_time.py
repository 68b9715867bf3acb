"""What starts fast must not load what is slow to load."""

import subprocess
import sys

import pytest

SLOW = {"torch", "torchvision", "onnx", "onnxruntime", "onnxscript", "sklearn", "matplotlib", "scipy", "tensorly"}
LOADED = "import sys; print(*sorted({name.partition('.')[0] for name in sys.modules}))"


def loaded_after(statement: str) -> set[str]:
    """Name the packages a fresh process has loaded after a statement."""
    done = subprocess.run(
        [sys.executable, "-c", f"{statement}\n{LOADED}"], capture_output=True, text=True, check=True, timeout=120
    )
    return set(done.stdout.splitlines()[-1].split())


@pytest.mark.parametrize(
    "module", ["adaptkit", "adaptkit.techniques", "adaptkit.recipe", "adaptkit.reading.schema", "adaptkit_cli.main"]
)
def test_importing_loads_nothing_slow(module):
    assert loaded_after(f"import {module}") & SLOW == set()


def test_the_command_line_loads_pydantic_and_yaml_only_when_a_command_needs_them():
    assert loaded_after("import adaptkit_cli.main") & {"pydantic", "ruamel"} == set()


def test_a_recipe_is_validated_without_torch():
    text = "{version: 1, name: a, model: {zoo: lenet5_digits}, data: {digits: true}, steps: [quantize.static]}"
    loaded = loaded_after(f"from adaptkit import parse_recipe; parse_recipe({text!r})")
    assert loaded & SLOW == set()
    assert "pydantic" in loaded


def test_the_test_itself_sees_what_is_loaded():
    assert "sklearn" in loaded_after("import sklearn")
