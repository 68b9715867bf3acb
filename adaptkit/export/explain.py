"""Why a model cannot be exported, in one line for the user: the reason, the line of their code, what to do."""

from __future__ import annotations

import re
import traceback
from pathlib import Path

import torch

_NOT_THEIRS = (str(Path(torch.__file__).parent), str(Path(__file__).parents[1]), "<")
_NODE = re.compile(r"Error when translating node %(\w+) .*target=torch\.ops\.([\w.]+)\]")
_FILE = re.compile(r'File "(.+)", line (\d+), in (\w+)')


def explain(name: str, error: Exception, program: torch.export.ExportedProgram | None) -> str:
    """Put an exception of the capture or of the conversion into one line.

    Args:
        name: Of the model's class.
        error: What was raised.
        program: The captured model, where the conversion failed.
    """
    chain = _chain(error)
    found = next((match for each in chain if (match := _NODE.search(str(each)))), None)
    where = _line_of_node(program, found[1]) if found else _line_of_traceback(error)
    operation = f"{found[2]}: " if found else ""
    reason = _first_line(chain[-1] if found else error)
    return f"{name} cannot be exported to ONNX{where}: {operation}{reason}. {_remedy(str(error), bool(found))}"


def _chain(error: BaseException) -> list[BaseException]:
    chain = [error]
    while chain[-1].__cause__ is not None:
        chain.append(chain[-1].__cause__)
    return chain


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0].partition(" For more information")[0].rstrip(".! ") if lines else type(error).__name__


def _line_of_traceback(error: BaseException) -> str:
    """Find the innermost line that is neither PyTorch's nor ours."""
    frames = traceback.extract_tb(error.__traceback__)
    theirs = [(frame.filename, frame.lineno, frame.name) for frame in frames]
    return _innermost(theirs)


def _line_of_node(program: torch.export.ExportedProgram | None, name: str) -> str:
    """Find the line that made a node of the captured graph."""
    nodes = program.graph.nodes if program is not None else ()
    trace = next((node.stack_trace or "" for node in nodes if node.name == name), "")
    return _innermost(_FILE.findall(trace))


def _innermost(frames: list[tuple[str, int | None, str]]) -> str:
    theirs = [frame for frame in frames if not frame[0].startswith(_NOT_THEIRS)]
    return " ({}:{}, in {})".format(*theirs[-1]) if theirs else ""


def _remedy(text: str, conversion: bool) -> str:
    if conversion:
        return "ONNX has no such operation in this form: write it with others"
    if "data-dependent" in text or "GuardOnDataDependent" in text:
        return "The path through the model depends on values of tensors: use torch.where, or torch.cond"
    if "dynamic_shapes" in text or "Constraints violated" in text or "specialized" in text:
        return "The model fixes the batch size: write x.shape[0] (or -1) where a constant stands"
    return "Check that model(*example_inputs) runs in evaluation mode; only tensors may go in and out"
