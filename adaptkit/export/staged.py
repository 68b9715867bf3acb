"""An exported model with exits as an artifact: one ONNX file a stage and a manifest, or one file in all."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import helper

from adaptkit.export.compose import StageNames, compose
from adaptkit.export.cut import exit_boundaries, split
from adaptkit.export.files import write_model
from adaptkit.export.packaging import Packaging
from adaptkit.export.rule import Rule
from adaptkit.export.score import add_score
from adaptkit.runtime.early_exit import ExitsManifest, Stage, Value
from adaptkit.runtime.manifest import describe

FOLDER = "stages"
_DEFAULT = Packaging()


def make_stages(
    proto: onnx.ModelProto, exits: Sequence[str], rule: Rule, temperatures: Sequence[float]
) -> tuple[list[onnx.ModelProto], list[StageNames]]:
    """Cut a model with exits into stages that say how sure they are.

    Args:
        proto: Gives the last answer as its first output, and those of the exits.
        exits: Names of the outputs of the exits, in order.
        rule: What a score is.
        temperatures: One an exit.

    Raises:
        ModelError: An exit does not branch off at a single value.
    """
    final = proto.graph.output[0].name
    stages = split(proto, exit_boundaries(proto.graph, final, exits), [*([name] for name in exits), [final]])
    names = [*(StageNames(name, f"{name}/score") for name in exits), StageNames(final)]
    for stage, named, temperature in zip(stages, names, temperatures, strict=False):
        add_score(stage, named.logits, str(named.score), rule, temperature)
    for stage in stages:
        stage.metadata_props.extend(proto.metadata_props)
    return stages, names


def write_stages(
    stages: Sequence[onnx.ModelProto],
    names: Sequence[StageNames],
    rule: Rule,
    thresholds: Sequence[float],
    folder: Path,
    packaging: Packaging = _DEFAULT,
) -> ExitsManifest:
    """Write a file for every stage, and then the manifest that names them.

    Args:
        stages: From `make_stages`.
        names: From `make_stages`.
        rule: What a score is.
        thresholds: One an exit, on the score.
        folder: Gets stages/0.onnx, … and manifest.json.
        packaging: Of the first stage.

    Raises:
        RunFolderError: The disk is full or the folder cannot be written.
    """
    (folder / FOLDER).mkdir(parents=True, exist_ok=True)
    limits = [*map(float, thresholds), None]
    described = []
    takes = [value_of(stage.graph.input[0]) for stage in stages]
    for number, (stage, named, limit) in enumerate(zip(stages, names, limits, strict=True)):
        name = f"{FOLDER}/{number}.onnx"
        whole = onnx.ModelProto.FromString(stage.SerializeToString())  # writing may change how constants are held
        if number:
            write_model(whole, folder / name)
        else:
            packaging.write(whole, folder / name)
        described.append(
            Stage(
                file=name,
                takes=takes[number],
                gives=takes[number + 1] if limit is not None else None,
                logits=named.logits,
                score=named.score,
                threshold=limit,
            )
        )
    manifest = ExitsManifest(files=describe(folder), rule=rule, stages=tuple(described))
    manifest.write(folder)
    return manifest


def write_single_file(
    stages: Sequence[onnx.ModelProto],
    names: Sequence[StageNames],
    rule: Rule,
    thresholds: Sequence[float],
    path: Path,
    packaging: Packaging = _DEFAULT,
) -> None:
    """Write one file with nested If.

    Args:
        stages: From `make_stages`.
        names: From `make_stages`.
        rule: What a score is.
        thresholds: One an exit, on the score.
        path: Of the .onnx file.
        packaging: Of that file.

    Raises:
        RunFolderError: The disk is full or the folder cannot be written.
    """
    packaging.write(compose(stages, names, rule, thresholds), path)


def value_of(info: onnx.ValueInfoProto) -> Value:
    """Describe what a stage takes, for one sample."""
    kind = info.type.tensor_type
    dtype = np.dtype(helper.tensor_dtype_to_np_dtype(kind.elem_type))
    shape = tuple(dim.dim_value for dim in kind.shape.dim[1:])
    return Value(name=info.name, dtype=dtype.name, shape=shape, bytes=math.prod(shape) * dtype.itemsize)
