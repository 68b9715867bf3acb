"""A result cache: what was seen before is answered from memory."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from adaptkit.conditional.base import Artifact, Conditional
from adaptkit.conditional.perturbations import Perturbations
from adaptkit.errors import DataError
from adaptkit.specs import MOST_ENTRIES
from adaptkit.technique import Context

if TYPE_CHECKING:
    import numpy as np
    import onnx
    from torch import Tensor, nn

    from adaptkit.conditional.hit_threshold import HitRule
    from adaptkit.export.packaging import Packaging
    from adaptkit.runtime.result_cache import AnswerForm


class Popularity(BaseModel):
    """How often different things are asked for: the r-th most popular in a share proportional to r^−exponent."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)

    items: Annotated[int, Field(ge=1, le=10_000_000)] = 10_000
    """How many different things there are."""
    exponent: Annotated[float, Field(ge=0, le=10)] = 1.0
    """Of Zipf's law; 0 asks for all as often."""


class Lists(BaseModel):
    """A search that looks only where the nearest entry likely is."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    lists: Annotated[int, Field(ge=2)] = 256
    """Into how many lists entries go, by the nearest of as many centres."""
    probes: Annotated[int, Field(ge=1)] = 2
    """How many of them a search looks into."""


@dataclass(frozen=True)
class Cached:
    """An artifact behind a cache, which is empty when it is written.

    Args:
        inner: What runs for misses.
        key: The network that makes keys.
        settings: Of the cache.
        rule: What is a hit.
        dimensions: Of a key.
        capacity: Entries at most.
        centres: Of the lists; None where all entries are searched.
        answer: Form of what the inner artifact answers.
        hit_rate: Share of the validation queries that hit.
        seed: Of the choice of shadowed hits.
    """

    inner: Artifact
    key: onnx.ModelProto
    settings: ResultCache
    rule: HitRule
    dimensions: int
    capacity: int
    centres: np.ndarray[tuple[int, ...], np.dtype[np.float32]] | None
    answer: AnswerForm
    hit_rate: float
    seed: int

    @property
    def paths(self) -> tuple[str, ...]:
        """A hit, and the ways of the inner artifact: `miss: exit 0`."""
        from adaptkit.runtime.result_cache import HIT

        return (HIT, *(f"miss: {path}" for path in self.inner.paths))

    @property
    def parts(self) -> list[tuple[onnx.ModelProto, float]]:
        """What makes the keys, for every sample; the networks of the inner artifact, for those that miss."""
        return [(self.key, 1.0), *((proto, share * (1 - self.hit_rate)) for proto, share in self.inner.parts)]

    def answers(self, x: Tensor) -> list[Tensor | None]:
        """Give what the inner artifact answers; a hit has no network of its own."""
        return [None, *self.inner.answers(x)]

    def write(self, folder: Path, packaging: Packaging) -> None:
        """Write key.onnx, the folder inner, the centres, and the manifest.

        Raises:
            RunFolderError: The disk is full or the folder cannot be written.
        """
        import onnx
        import safetensors.numpy

        from adaptkit.files import write_atomically
        from adaptkit.runtime.manifest import describe
        from adaptkit.runtime.result_cache import INNER, KEY, LISTS, CacheManifest

        (folder / INNER).mkdir()
        self.inner.write(folder / INNER, packaging)
        key = onnx.ModelProto.FromString(self.key.SerializeToString())  # writing changes how constants are held
        packaging.write(key, folder / KEY)
        if self.centres is not None:
            write_atomically(folder / LISTS, safetensors.numpy.save({"centres": self.centres}))
        CacheManifest(
            files=describe(folder),
            unit=self.settings.unit,
            dimensions=self.dimensions,
            threshold=self.rule.threshold,
            ratio=self.rule.ratio,
            min_confidence=self.rule.min_confidence,
            trust=self.settings.trust,
            capacity=self.capacity,
            eviction=self.settings.eviction,
            ttl_seconds=self.settings.ttl_seconds,
            shadow_rate=self.settings.shadow_rate,
            seed=self.seed,
            probes=None if self.centres is None or self.settings.search == "exact" else self.settings.search.probes,
            answer=self.answer,
        ).write(folder)


class ResultCache(Conditional):
    """Answer from memory what was seen before, and run the model for the rest.

    The key of an input is a small unit vector, or a perceptual hash. An entry answers where it is near enough: at a
    cosine distance (1 − cosine), or in so many bits, of at most a threshold, and clearly nearer than the nearest entry
    with another answer. Both are chosen on pairs of validation samples, as a server would see them: half of the samples
    are stored, changed at random; then they all come, changed anew. The share of hits with the answer that the model
    itself would give is bounded from below (Clopper-Pearson); where no rule reaches the target, it refuses.

    A model contradicts itself about inputs it is not sure of, when they come again a little changed. An entry of such
    an answer waits until the model was asked often enough and agreed (`trust`).

    The bound is for a cache that holds about as many entries as half of the validation samples. One that has just been
    emptied knows few other answers, so that more is clearly nearest to one of them: its first hits are less precise.

    While it runs, the model answers a share of the hits all the same; an entry that was wrong waits again. A cache
    saved to disk serves only the very files it was filled by.

    Source: Drolia, Guo, Tan, Gandhi and Narasimhan 2017, "Cachier: edge-caching for recognition applications".

    Example:
        >>> ResultCache(target_precision=0.99, capacity=Popularity(items=100_000, exponent=0.9)).unit
        'cosine'
    """

    name: ClassVar[str] = "result_cache"
    needs: ClassVar[frozenset[str]] = frozenset({"validation", "calibration"})

    key: Literal["embedding", "hash"] = "embedding"
    """A unit vector: pooled pixels, projected to where samples differ most for how much perturbations change them. Or a
    hash of 64 bits: signs of low frequencies of the grey image."""
    dimensions: Annotated[int, Field(ge=1, le=256)] = 32
    """Of an embedding, at most."""
    cells: Annotated[int, Field(ge=1, le=64)] = 16
    """Rows and columns of pooled images."""
    target_precision: Annotated[float, Field(gt=0, lt=1)] = 0.99
    """Share of the hits that must have the model's own answer."""
    confidence: Annotated[float, Field(gt=0.5, lt=1)] = 0.95
    """How often the bound on the precision must hold."""
    perturbations: Perturbations = Perturbations()
    """What happens to an input between one time and the next."""
    min_confidences: Annotated[tuple[Annotated[float, Field(ge=0, le=1)], ...], Field(min_length=1)] = (
        0.0,
        0.6,
        0.8,
        0.9,
        0.95,
        0.98,
        0.99,
        0.995,
    )
    """How sure the model must be of an answer that is given again at once; the best of these is taken."""
    trust: Annotated[float, Field(gt=0.5, le=1)] = 0.95
    """Other answers are given where the model was asked again often enough and agreed: (agreed + 1) / (runs + 2) is at
    least this. At 1 they never are."""
    capacity: Annotated[int, Field(ge=1, le=MOST_ENTRIES)] | Popularity = 10_000
    """Entries at most; or how requests are spread, and the capacity with the least expected latency is taken."""
    eviction: Literal["lru", "lfu"] = "lru"
    """Which entry goes when the cache is full: the one not used for the longest time, or used least often."""
    ttl_seconds: Annotated[float, Field(gt=0)] | None = None
    """How long an answer is good."""
    shadow_rate: Annotated[float, Field(ge=0, le=1)] = 0.01
    """Share of the hits that the model runs for all the same."""
    search: Literal["exact"] | Lists = "exact"
    """All entries by one product of matrices, or lists, which pay for many entries and miss some hits."""

    @property
    def unit(self) -> Literal["cosine", "bits"]:
        """What the threshold is in."""
        return "cosine" if self.key == "embedding" else "bits"

    def check(self, model: nn.Module) -> list[str]:
        """Say where settings do not fit together."""
        del model
        if self.key == "hash" and self.search != "exact":
            return ["lists are for embeddings: a hash is searched exactly"]
        return []

    def wrap(self, inner: Artifact, original: nn.Module, context: Context) -> Cached:
        """Make keys, and find the threshold.

        Raises:
            DataError: There is no validation or calibration data, or the key does not fit the samples.
            TargetError: No threshold has the precision asked for; says how far it got.
        """
        del original
        if context.validation is None or context.calibration is None:
            raise DataError(f"{self.name} needs validation and calibration data: give both to the Context")
        from adaptkit.conditional.cache_fit import fit_cache

        return fit_cache(self, inner, context)
