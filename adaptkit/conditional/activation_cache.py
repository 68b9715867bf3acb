"""An activation cache: the pass stops where the activations are like those of known samples."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from adaptkit.conditional.base import Artifact, Conditional
from adaptkit.errors import DataError, ModelError
from adaptkit.technique import Context

if TYPE_CHECKING:
    import numpy as np
    import onnx
    from torch import Tensor, nn

    from adaptkit.conditional.thresholds import Outcome
    from adaptkit.export.packaging import Packaging


@dataclass(frozen=True)
class Remembered:
    """What is known at one point of a network.

    Args:
        point: The module it stands behind.
        output: Name of the keys in the stage.
        keys: Known × dimensions, unit vectors.
        answers: Known × classes, of the network.
        limits: One a class, on the distance.
    """

    point: str
    output: str
    keys: np.ndarray[tuple[int, ...], np.dtype[np.float32]]
    answers: np.ndarray[tuple[int, ...], np.dtype[np.float32]]
    limits: tuple[float, ...]


@dataclass(frozen=True)
class Remembering:
    """A network in stages, with what is known at the end of each.

    Args:
        stages: One more than there are memories.
        memories: In order.
        neighbours: How many must agree.
        logits: Name of the network's answer in the last stage.
        outcome: What the limits do to the samples they were tested on.
        network: What the stages were cut from.
    """

    stages: list[onnx.ModelProto]
    memories: list[Remembered]
    neighbours: int
    logits: str
    outcome: Outcome
    network: nn.Module

    @property
    def paths(self) -> tuple[str, ...]:
        """The hits, and the way through the whole network."""
        from adaptkit.runtime.activation_cache import MISS

        return (*(f"hit {number}" for number in range(len(self.memories))), MISS)

    @property
    def parts(self) -> list[tuple[onnx.ModelProto, float]]:
        """The stages, and the share of the samples that come to each."""
        left = [1.0]
        for share in self.outcome.shares[:-1]:
            left.append(left[-1] - share)
        return list(zip(self.stages, left, strict=True))

    def answers(self, x: Tensor) -> list[Tensor | None]:
        """Give what the network answers at the end; a hit has no network of its own."""
        from adaptkit.metrics.task import first_output

        return [*(None for _ in self.memories), first_output(self.network(x))]

    def write(self, folder: Path, packaging: Packaging) -> None:
        """Write stages/0.onnx, …, stages/0.safetensors, … and manifest.json.

        Raises:
            RunFolderError: The disk is full or the folder cannot be written.
        """
        import onnx
        import safetensors.numpy

        from adaptkit.export.files import write_model
        from adaptkit.export.staged import FOLDER, describe_value
        from adaptkit.files import write_atomically
        from adaptkit.runtime.activation_cache import ANSWERS, KEYS, ActivationManifest, CachedStage, Memory
        from adaptkit.runtime.manifest import describe

        (folder / FOLDER).mkdir()
        takes = [describe_value(stage.graph.input[0]) for stage in self.stages]
        described = []
        for number, (stage, memory) in enumerate(zip(self.stages, [*self.memories, None], strict=True)):
            file, known = f"{FOLDER}/{number}.onnx", f"{FOLDER}/{number}.safetensors"
            whole = onnx.ModelProto.FromString(stage.SerializeToString())  # writing may change how constants are held
            if number:
                write_model(whole, folder / file)
            else:
                packaging.write(whole, folder / file)
            if memory is not None:
                content = safetensors.numpy.save({KEYS: memory.keys, ANSWERS: memory.answers})
                write_atomically(folder / known, content)
            described.append(
                CachedStage(
                    file=file,
                    takes=takes[number],
                    gives=None if memory is None else takes[number + 1],
                    memory=memory and Memory(file=known, key=memory.output, limits=memory.limits),
                    logits=self.logits if memory is None else None,
                )
            )
        ActivationManifest(files=describe(folder), neighbours=self.neighbours, stages=tuple(described)).write(folder)


class ActivationCache(Conditional):
    """Stop the pass through a network where its activations are like those of known samples that agree.

    At points of the network, which are found on its captured graph, activations are averaged over places, projected to
    where the classes differ most, and scaled to length 1. A sample leaves with the mean answer of its k nearest known
    samples, where these agree on the class and the farthest is at most so far away (1 − cosine); the limit is one for
    each point and class. Known samples are training samples with the network's own answers. Limits are the fastest
    whose drop in accuracy against the original model is bounded on validation samples, with the confidence asked for,
    among those with the precision asked for. A point that does not save time is dropped.

    Source: Kumar, Balasubramanian et al. 2019, "Accelerating deep learning inference via freezing", HotCloud; 2021,
    "Accelerating deep learning inference via learned caches" (GATI).

    Example:
        >>> ActivationCache(points=3, neighbours=8).max_accuracy_drop
        0.005
    """

    name: ClassVar[str] = "activation_cache"
    needs: ClassVar[frozenset[str]] = frozenset({"train", "validation"})
    wraps: ClassVar[Literal["network", "artifact"]] = "network"

    points: Annotated[int, Field(ge=1)] | tuple[str, ...] = 3
    """How many points at most, placed by time; or the modules they are to stand behind."""
    entries: Annotated[int, Field(ge=1)] = 2000
    """How many training samples are known, at most."""
    dimensions: Annotated[int, Field(ge=1, le=64)] = 32
    """Of a reduced activation, at most."""
    neighbours: Annotated[int, Field(ge=1)] = 8
    """How many of the nearest known samples must agree."""
    target_precision: Annotated[float, Field(gt=0, lt=1)] = 0.95
    """Share of the hits of a point and class that must be right on the samples that set its limits."""
    max_accuracy_drop: Annotated[float, Field(gt=0, le=1)] = 0.005
    """Against the original model, as a share."""
    confidence: Annotated[float, Field(gt=0.5, lt=1)] = 0.95
    """How often the bound on the drop must hold."""

    def wrap(self, inner: Artifact, original: nn.Module, context: Context) -> Remembering:
        """Collect what is known, cut the network, and find the limits.

        Raises:
            DataError: There is no training or validation data, or too little of it.
            ModelError: The network is quantized, or cannot be left at a point asked for.
            TargetError: No limits keep the drop within its bound; says how far it got.
        """
        from adaptkit.conditional.activation_fit import fit_activations
        from adaptkit.conditional.plain import PlainArtifact
        from adaptkit.quantization.simulate import QuantizedModel

        assert isinstance(inner, PlainArtifact)
        if context.train is None or context.validation is None:
            raise DataError(f"{self.name} needs training and validation data: give both to the Context")
        if isinstance(inner.network, QuantizedModel):
            raise ModelError(f"{self.name} takes a float network, and this one is quantized: leave out that step")
        return fit_activations(self, inner.network, original, context)
