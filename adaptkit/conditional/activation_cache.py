"""An activation cache: the pass stops where the activations are like those of known samples."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from adaptkit.conditional.base import Artifact, Conditional
from adaptkit.conditional.perturbations import Perturbations
from adaptkit.errors import DataError, ModelError
from adaptkit.specs import MOST_ENTRIES
from adaptkit.technique import Context

if TYPE_CHECKING:
    import numpy as np
    import onnx
    from torch import Tensor, nn

    from adaptkit.conditional.thresholds import Outcome
    from adaptkit.export.packaging import Packaging
    from adaptkit.runtime.learned import Entries


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
class Recalled:
    """What is kept of earlier samples at one point of a network, once it runs.

    Args:
        point: The module it stands behind.
        entries: How they are compared and kept.
    """

    point: str
    entries: Entries


@dataclass(frozen=True)
class Remembering:
    """A network in stages, with what is known, or kept of earlier samples, at the end of each.

    Args:
        stages: One more than there are memories.
        memories: In order.
        neighbours: How many must agree.
        logits: Name of the network's answer in the last stage.
        outcome: What the limits do to the samples they were tested on.
        network: What the stages were cut from.
    """

    stages: list[onnx.ModelProto]
    memories: list[Remembered | Recalled]
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
            samples = None
            if isinstance(memory, Remembered):
                content = safetensors.numpy.save({KEYS: memory.keys, ANSWERS: memory.answers})
                write_atomically(folder / known, content)
                samples = Memory(file=known, key=memory.output, limits=memory.limits)
            described.append(
                CachedStage(
                    file=file,
                    takes=takes[number],
                    gives=None if memory is None else takes[number + 1],
                    memory=samples,
                    entries=memory.entries if isinstance(memory, Recalled) else None,
                    logits=self.logits if memory is None else None,
                )
            )
        ActivationManifest(files=describe(folder), neighbours=self.neighbours, stages=tuple(described)).write(folder)


class ActivationCache(Conditional):
    """Stop the pass through a network where its activations are like those of known samples, or of an earlier one.

    At points of the network, which are found on its captured graph, activations are averaged over places, projected to
    where the classes differ most, and scaled to length 1. A sample leaves with the mean answer of its k nearest known
    samples, where these agree on the class and the farthest is at most so far away (1 − cosine); the limit is one for
    each point and class. Known samples are training samples with the network's own answers.

    What is answered is kept as well, at one point, often an early one: what comes again, a little changed, leaves there
    with the answer it had. The key is the activation in a few cells, projected to where samples differ most for how
    much perturbations change them; an entry answers within a distance, and if it is clearly nearer than the nearest
    entry with another answer. A network contradicts itself about samples it is not sure of: an entry of such an answer
    waits until it was given often enough (`trust`). A model that is opened has kept nothing yet.

    Limits are the fastest whose drop in accuracy against the original model is bounded on validation samples, with the
    confidence asked for, among those with the precision asked for. Where answers are kept, half of these samples come
    for the second time. A point that does not save time is dropped.

    Source: Kumar, Balasubramanian et al. 2019, "Accelerating deep learning inference via freezing", HotCloud; 2021,
    "Accelerating deep learning inference via learned caches" (GATI). Guo et al. 2018, "FoggyCache: cross-device
    approximate computation reuse".

    Example:
        >>> ActivationCache(points=3, neighbours=8).max_accuracy_drop
        0.005
    """

    name: ClassVar[str] = "activation_cache"
    needs: ClassVar[frozenset[str]] = frozenset({"train", "validation"})
    wraps: ClassVar[Literal["network", "artifact"]] = "network"

    points: Annotated[int, Field(ge=1)] | tuple[str, ...] = 3
    """How many points at most, placed by time, and the first there is where answers are kept; or the modules they are
    to stand behind."""
    entries: Annotated[int, Field(ge=1)] = 2000
    """How many training samples are known, at most."""
    dimensions: Annotated[int, Field(ge=1, le=64)] = 32
    """Of a reduced activation, at most."""
    neighbours: Annotated[int, Field(ge=1)] = 8
    """How many of the nearest known samples must agree."""
    target_precision: Annotated[float, Field(gt=0, lt=1)] = 0.95
    """Share of the hits of a point and class that must be right on the samples that set its limits; of the answers that
    are given again, the share that must be the network's own."""
    max_accuracy_drop: Annotated[float, Field(gt=0, le=1)] = 0.005
    """Against the original model, as a share."""
    confidence: Annotated[float, Field(gt=0.5, lt=1)] = 0.95
    """How often the bound on the drop must hold."""
    capacity: Annotated[int, Field(ge=0, le=MOST_ENTRIES)] | None = 10_000
    """Answers kept at run time, at most; 0 or None for none. They are by default, since what servers are asked repeats
    and a point that saves no time is dropped; without them an answer depends on its input alone."""
    perturbations: Perturbations = Perturbations()
    """What happens to an input between one time and the next."""
    cells: Annotated[int, Field(ge=1, le=16)] = 4
    """Rows and columns of an activation that is compared with earlier ones; fewer where it has many channels."""
    eviction: Literal["lru", "lfu"] = "lru"
    """Which answer goes when there are as many: the one not used for the longest time, or used least often."""
    ttl_seconds: Annotated[float, Field(gt=0)] | None = None
    """How long an answer is good."""
    trust: Annotated[float, Field(gt=0.5, le=1)] = 0.95
    """Answers that the network is not sure of are given where it was asked again often enough and agreed:
    (agreed + 1) / (runs + 2) is at least this. At 1 they never are."""

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
