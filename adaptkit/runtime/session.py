"""ONNX Runtime sessions, all opened the same way."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import onnxruntime as ort
from onnxruntime.capi import onnxruntime_pybind11_state as errors

from adaptkit.errors import ModelError

_QUIET = 3
"""ONNX Runtime's log level: errors only."""
_WEIGHTS_FOLDER = "session.model_external_initializers_file_folder_path"
RUN_ERRORS: tuple[type[Exception], ...] = (
    errors.EPFail,
    errors.Fail,
    errors.InvalidArgument,
    errors.InvalidGraph,
    errors.NotImplemented,
    errors.RuntimeException,
)
"""What ONNX Runtime answers with where a model that it could open cannot run."""
_UNKNOWN_OPERATOR = re.compile(r"is not a registered function/op|No Op registered for")


def session_options(threads: int | None = None) -> ort.SessionOptions:
    """Give options for one operator at a time, on `threads` threads that sleep while they wait.

    Spinning threads take the time of whatever runs beside them, and make measurements on a shared machine depend on it.

    Args:
        threads: Threads within an operator; None leaves the choice to ONNX Runtime (one a core).
    """
    options = ort.SessionOptions()
    if threads is not None:
        options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = _QUIET
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options


def open_session(
    model: Path | bytes,
    threads: int | None = None,
    options: ort.SessionOptions | None = None,
    weights_in: Path | None = None,
) -> ort.InferenceSession:
    """Open a model on the CPU.

    Args:
        model: A file, or the bytes of one.
        threads: Threads within an operator; None lets ONNX Runtime choose.
        options: In place of `session_options(threads)`.
        weights_in: The folder of weights that bytes name by file; they are looked at there, and not copied.

    Raises:
        ModelError: The file is missing, is no ONNX file, or holds what ONNX Runtime cannot run.
    """
    if isinstance(model, Path) and not model.is_file():
        raise ModelError(f"{model} is not there: give an ONNX file")
    source: Any = str(model) if isinstance(model, Path) else model
    options = options or session_options(threads)
    if weights_in is not None:
        options.add_session_config_entry(_WEIGHTS_FOLDER, str(weights_in.resolve()))
    try:
        # Its own second attempt would be on the same processor, and announces itself on stdout.
        session = ort.InferenceSession(source, options, providers=["CPUExecutionProvider"], enable_fallback=0)
        _read_texts(session)
    except Exception as error:  # ONNX Runtime's errors have no common class of their own
        name = model if isinstance(model, Path) else "the model"
        raise ModelError(f"ONNX Runtime cannot open {name}: {_reason(error)}. {_remedy(str(error))}") from error
    return session


def _read_texts(session: ort.InferenceSession) -> None:
    """Read all names and notes once: in a damaged file they may be no text, which is found out when they are read."""
    texts = [*session.get_modelmeta().custom_metadata_map]
    for value in (*session.get_inputs(), *session.get_outputs()):
        texts += [value.name, value.type, str(value.shape)]


def _remedy(message: str) -> str:
    if _UNKNOWN_OPERATOR.search(message):
        return (
            "It has no such operator: export the model with standard operators, or with a custom one written as an "
            "ONNX function"
        )
    if "escapes model directory" in message or "Absolute path not allowed" in message:
        return "Weights outside the file's own folder are refused: put them beside it"
    if "External data path does not exist" in message:
        return "Copy the weights beside the file, too"
    return "Is it a whole ONNX file?"


def cannot_run(error: Exception) -> ModelError:
    """Say what ONNX Runtime said of a model that it could open: one of `RUN_ERRORS`, in words for a user."""
    return ModelError(
        f"ONNX Runtime cannot run the model: {_reason(error)}. Give inputs of the shape that it was made for, or "
        "export it again"
    )


def _reason(error: Exception) -> str:
    return str(error).splitlines()[0].partition(" : ")[2][:200] or type(error).__name__
