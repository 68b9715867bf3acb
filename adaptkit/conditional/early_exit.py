"""Early exits: what is easy leaves after a part of the network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from adaptkit.conditional.base import Artifact, Conditional
from adaptkit.errors import DataError, ModelError
from adaptkit.export.rule import Rule
from adaptkit.quantization import StaticQuantization
from adaptkit.reading.problem import hint
from adaptkit.technique import Context, Form
from adaptkit.training.settings import FitSettings

if TYPE_CHECKING:
    import onnx
    from torch import Tensor, nn

    from adaptkit.conditional.thresholds import Outcome
    from adaptkit.export.compose import StageNames
    from adaptkit.export.packaging import Packaging


_FLOAT = "exits train in float: say with quantize: how the stages are to become integers again"


@dataclass(frozen=True)
class Exits:
    """A network in stages, with the thresholds that were found.

    Args:
        stages: One more than there are exits.
        names: Of their outputs.
        points: The module each exit stands behind.
        rule: What the scores are.
        thresholds: On the scores, one an exit.
        outcome: What they do to the samples they were tested on.
        network: What the stages were cut from; gives the last answer, and then those of all exits.
        kept: Which of the network's exits there still are.
        single_file: Whether it is written as one file.
    """

    stages: list[onnx.ModelProto]
    names: list[StageNames]
    points: tuple[str, ...]
    rule: Rule
    thresholds: tuple[float, ...]
    outcome: Outcome
    network: nn.Module
    kept: tuple[int, ...]
    single_file: bool = False

    @property
    def paths(self) -> tuple[str, ...]:
        """Names of the exits, the end counted."""
        return tuple(f"exit {number}" for number in range(len(self.stages)))

    @property
    def parts(self) -> list[tuple[onnx.ModelProto, float]]:
        """The stages, and the share of the samples that come to each."""
        left = [1.0]
        for share in self.outcome.shares[:-1]:
            left.append(left[-1] - share)
        return list(zip(self.stages, left, strict=True))

    def answers(self, x: Tensor) -> list[Tensor | None]:
        """Give what the network answers at each exit, and at the end."""
        final, *early = self.network(x)
        return [*(early[number] for number in self.kept), final]

    def write(self, folder: Path, packaging: Packaging) -> None:
        """Write the stages and their manifest, or one file model.onnx.

        Args:
            folder: Is there.
            packaging: Of the file that takes the model's input.

        Raises:
            RunFolderError: The disk is full or the folder cannot be written.
        """
        from adaptkit.export.staged import write_single_file, write_stages

        if self.single_file:
            file = folder / "model.onnx"
            write_single_file(self.stages, self.names, self.rule, self.thresholds, file, packaging)
        else:
            write_stages(self.stages, self.names, self.rule, self.thresholds, folder, packaging)


class EarlyExit(Conditional):
    """Let samples leave the network as soon as it is sure of them.

    Small heads behind points of the network, which are found on its captured graph, answer early. They train together
    with the network, or alone. A sample leaves at the first exit whose score is past its threshold; thresholds are the
    fastest whose drop in accuracy against the original model is bounded, with the confidence asked for, on validation
    samples. An exit that does not save time is dropped.

    Source: Teerapittayanon, McDanel and Kung 2016, "BranchyNet: fast inference via early exiting from deep neural
    networks".

    Example:
        >>> EarlyExit(exits=1, max_accuracy_drop=0.002).rule
        'confidence'
    """

    name: ClassVar[str] = "early_exit"
    needs: ClassVar[frozenset[str]] = frozenset({"train", "validation", "calibration", "teacher"})
    wraps: ClassVar[Literal["network", "artifact"]] = "network"

    exits: Annotated[int, Field(ge=1)] | tuple[str, ...] = 2
    """How many exits at most, placed by time; or the modules they are to stand behind."""
    head: Literal["linear", "convolution"] = "convolution"
    """What classifies feature maps."""
    head_width: Annotated[int, Field(ge=1)] = 32
    """Channels of a head's first convolution; each further one has twice as many."""
    head_depth: Annotated[int, Field(ge=1)] = 1
    """Convolutions of a head, each halving the map; deeper ones answer better early, where features are still fine."""
    training: Literal["joint", "heads"] = "joint"
    """Whether the network trains with its heads."""
    epochs: Annotated[float, Field(gt=0)] = 3.0
    """Passes over the training data; parts count."""
    fit: FitSettings = FitSettings(learning_rate=0.05, gradient_clip=5)
    alpha: Annotated[float, Field(ge=0, le=1)] = 0.5
    """Weight of the answer behind an exit, against the targets."""
    temperature: Annotated[float, Field(gt=0)] = 3.0
    """Of the answers that exits learn from."""
    early_weight: Annotated[float, Field(gt=0)] = 1.0
    """Weight of every exit's loss; the last answer has 1."""
    rule: Rule = "confidence"
    """What says how sure an exit is."""
    max_accuracy_drop: Annotated[float, Field(gt=0, le=1)] = 0.005
    """Against the original model, as a share."""
    confidence: Annotated[float, Field(gt=0.5, lt=1)] = 0.95
    """How often the bound on the drop must hold."""
    quantize: StaticQuantization | None = None
    """Turn the stages into 8-bit integers, the heads too."""
    single_file: bool = False
    """Write one ONNX file, whose batch leaves as a whole, in place of a file for every stage."""

    @property
    def refuses(self) -> Mapping[Form, str]:
        """Integers, unless it is told how to make them again."""
        return {} if self.quantize is not None else {"quantized": _FLOAT}

    def check(self, model: nn.Module) -> list[str]:
        """List the exits that are no modules of the model."""
        known = dict(model.named_modules())
        named = self.exits if isinstance(self.exits, tuple) else ()
        return [f"exits: {path!r} is no module of the model{hint(path, known)}" for path in named if path not in known]

    def wrap(self, inner: Artifact, original: nn.Module, context: Context) -> Exits:
        """Train exits into a network, and find their thresholds."""
        from adaptkit.conditional.plain import PlainArtifact

        assert isinstance(inner, PlainArtifact)
        return self.calibrate(self.train(inner.network, context), original, context)

    def train(self, model: nn.Module, context: Context) -> nn.Module:
        """Put exits into a model and train them; the model given may be edited and must not be used afterwards.

        Args:
            model: A float model.
            context: With training data; the teacher is what the last answer learns from in joint training.

        Returns:
            An ExitNetwork, or a QuantizedModel of one.

        Raises:
            DataError: There is no training data.
            ModelError: The model cannot be captured, is quantized already, or cannot be left at a point asked for.
        """
        import torch

        from adaptkit.conditional.exit_network import ExitNetwork
        from adaptkit.conditional.exit_training import exits_loss
        from adaptkit.quantization.simulate import QuantizedModel
        from adaptkit.training.checkpoint import state_sha256
        from adaptkit.training.fit import fit

        if context.train is None:
            raise DataError(f"{self.name} needs training data: give Context(train=...)")
        if isinstance(model, QuantizedModel):
            if self.quantize is None:
                raise ModelError(f"the model is quantized: {_FLOAT}")
            model = model.model
        joint = self.training == "joint"
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(context.seed)
            network = ExitNetwork(model, self._heads(model, context), frozen=not joint)
        teacher = context.teacher if joint else None
        fit(
            network,
            context.train,
            epochs=self.epochs,
            settings=self.fit,
            loss=exits_loss(self.alpha, self.temperature, self.early_weight, teacher and teacher.eval(), joint),
            seed=context.seed,
            workspace=context.workspace,
            progress=context.progress,
            tag=f"{self.model_dump_json()} {state_sha256(teacher) if teacher else ''}",
        )
        return network if self.quantize is None else self.quantize.apply(network, context)

    def calibrate(self, network: nn.Module, original: nn.Module, context: Context, threads: int = 1) -> Exits:
        """Cut a trained network into stages, and find their thresholds.

        Args:
            network: From `train`.
            original: What the drop in accuracy is counted against.
            context: With validation data, which decides, and calibration data, which sets temperatures.
            threads: The stages are timed with.

        Raises:
            DataError: There is no validation data.
            TargetError: No thresholds keep the drop within its limit; says how far it got.
        """
        from adaptkit.conditional.calibration import find_exits

        if context.validation is None:
            raise DataError(f"{self.name} needs validation data: give Context(validation=...)")
        return find_exits(self, network, original, context, threads)

    def _heads(self, model: nn.Module, context: Context) -> dict[str, nn.Module]:
        from adaptkit.conditional.heads import make_head
        from adaptkit.conditional.points import chosen_points

        chosen = chosen_points(model, context.example_inputs, self.exits)
        classes = _answer(model, context.example_inputs).shape[1]
        return {
            point.path: make_head(point.shape, classes, self.head, self.head_width, self.head_depth) for point in chosen
        }


def _answer(model: nn.Module, inputs: tuple[Tensor, ...]) -> Tensor:
    import torch

    from adaptkit.metrics.task import first_output
    from adaptkit.modes import evaluating

    with evaluating(model), torch.no_grad():
        return first_output(model(*inputs))
