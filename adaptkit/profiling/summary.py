"""All figures of one model together, from its file."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor, nn

from adaptkit.errors import ModelError
from adaptkit.export.files import file_bytes, read_model
from adaptkit.profiling.activations import file_peak_activation_bytes
from adaptkit.profiling.artifact import onnx_files, unfolded
from adaptkit.profiling.energy import energy_per_inference
from adaptkit.profiling.fixed import fix_shapes
from adaptkit.profiling.graph import file_cost
from adaptkit.profiling.latency import compare
from adaptkit.profiling.layer_profile import profile_network
from adaptkit.profiling.layer_table import LayerTable, layer_table
from adaptkit.profiling.machine import measure_machine
from adaptkit.profiling.memory import peak_memory
from adaptkit.profiling.named import Sample, export_named
from adaptkit.profiling.parameters import count_parameters, graph_constants
from adaptkit.report.schema import Figures, Profile
from adaptkit.specs import ProfileSpec

__all__ = ["LayerTable", "figures", "layer_table", "profile_file", "with_layers"]

_DEFAULT = ProfileSpec()
_SOURCES = ("torchvision", "zoo", "python")
_FORMS = "an ONNX file, a run folder, torchvision:NAME, zoo:NAME or python:module:function"


def figures(
    model: nn.Module,
    example_inputs: tuple[Tensor, ...],
    onnx_path: Path,
    baseline_path: Path,
    profile: ProfileSpec,
) -> Figures:
    """Measure a model and its file, alternately with the baseline's file.

    Everything but the number of parameters comes from the file: MACs, bytes, latency, memory, energy.

    Args:
        model: Where the file came from.
        example_inputs: Not used for measuring: inputs are made from what the file says it takes.
        onnx_path: The file.
        baseline_path: The file to compare with; the same path where this is the baseline.
        profile: What to measure.

    Raises:
        ModelError: A file cannot be run.
    """
    del example_inputs
    return _measure(onnx_path, baseline_path, profile, count_parameters(model))


def profile_file(
    path_or_spec: str, profile: ProfileSpec = _DEFAULT, *, layers: bool = False, samples: Sequence[Sample] = ()
) -> Profile:
    """Measure an ONNX file, the model of a run folder beside its baseline, or a model by name.

    Args:
        path_or_spec: A file, a run folder, `torchvision:NAME`, `zoo:NAME` or `python:module:function`. Parameters of
            a file are its constants (normalizations that were folded are gone), those of a named model are PyTorch's.
        profile: What to measure.
        layers: Measure every layer, too, at the first thread count and batch size.
        samples: Shape and type of a sample, one for each input: needed where an ONNX file leaves dimensions free, and
            for `python:`.

    Raises:
        ModelError: Nothing is there under this name, or it cannot be run.
    """
    path = Path(path_or_spec)
    with tempfile.TemporaryDirectory() as folder:
        temporary = Path(folder, "model.onnx")
        if not path.exists():
            if path_or_spec.partition(":")[0] not in _SOURCES or ":" not in path_or_spec:
                raise ModelError(f"{path_or_spec} is not there: give {_FORMS}")
            model = export_named(path_or_spec, samples, temporary)
            found, file = _measure(temporary, temporary, profile, count_parameters(model)), temporary
        else:
            file, baseline = _files(path)
            size = file_bytes(file)
            if samples:
                fix_shapes(file, samples, temporary)
                file = baseline = temporary
            found = _measure(file, baseline, profile, count_constants(file)).model_copy(update={"bytes": size})
        whole = Profile(model=path_or_spec, **dict(found))
        return with_layers(whole, file, profile) if layers else whole


def with_layers(found: Profile, path: Path, profile: ProfileSpec) -> Profile:
    """Measure every layer of every network that a model is made of, too.

    Args:
        found: The figures of the whole.
        path: A file or folder; of a file with exits, the longest way.
        profile: Of which the first thread count and batch size are used.
    """
    machine = measure_machine(profile.threads[0])
    networks = []
    for file in onnx_files(path):
        proto = unfolded(read_model(file, weights_beside=False))
        name = file.relative_to(path).as_posix() if path.is_dir() else file.name
        size = profile.batch_sizes[0]
        networks.append(profile_network(proto, machine, name=name, weights_in=file.parent, batch_size=size))
    return found.model_copy(update={"machine": machine, "networks": networks})


def _files(path: Path) -> tuple[Path, Path]:
    """Give the model and the baseline that a path means."""
    if path.is_file():
        return path, path
    model, baseline = path / "model.onnx", path / "baseline.onnx"
    if not model.is_file():
        raise ModelError(f"{path} holds no model.onnx: give an ONNX file or the folder of a finished run")
    return model, baseline if baseline.is_file() else model


def _measure(path: Path, baseline: Path, profile: ProfileSpec, parameters: int) -> Figures:
    cost = file_cost(path)
    paths = [path] if path == baseline else [baseline, path]
    found = compare(paths, profile)[-1]
    energy = energy_per_inference(path, threads=profile.threads[0])
    return Figures(
        parameters=parameters,
        macs=cost.macs,
        bytes=file_bytes(path),
        latency_ms=found.latency_ms,
        speedup=found.speedup,
        peak_memory_bytes=peak_memory(path, profile.batch_sizes[0]),
        peak_activation_bytes=file_peak_activation_bytes(path, profile.batch_sizes[0]),
        energy_mj=energy.millijoules,
        energy_method=energy.method,
    )


def count_constants(path: Path) -> int:
    """Count the values of the constants that are no shapes, scales or zero points."""
    return graph_constants(read_model(path, weights_beside=False).graph)
