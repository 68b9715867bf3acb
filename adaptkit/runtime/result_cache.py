"""Answers from memory where an input was seen before; the model runs for the others."""

from __future__ import annotations

import hashlib
import math
import random
import threading
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import onnxruntime as ort
import safetensors.numpy
from pydantic import Field, model_validator
from safetensors import SafetensorError

from adaptkit.errors import DataError, ModelError
from adaptkit.metrics.bounds import share_bound
from adaptkit.runtime.cache_file import read_entries, write_entries
from adaptkit.runtime.cache_index import NOTHING, BitIndex, ExactIndex, Index, ListIndex
from adaptkit.runtime.cache_order import Eviction
from adaptkit.runtime.cache_store import Store, confidence
from adaptkit.runtime.early_exit import Value
from adaptkit.runtime.fits import check_fits
from adaptkit.runtime.manifest import Capacity, Manifest, Part, Positive
from adaptkit.runtime.members import check_alike, check_known
from adaptkit.runtime.result import Array, Result, Runner
from adaptkit.runtime.session import open_session

KEY = "key.onnx"
INNER = "inner"
LISTS = "lists.safetensors"
ENTRIES = "entries.cache"
HIT, LOOK_UP = "hit", "look-up"
BITS = 64
_LARGEST = 2**31


class AnswerForm(Part):
    """What the inner model answers for one sample.

    Args:
        dtype: numpy's name of its type.
        shape: Without the batch.
    """

    dtype: Literal["float32", "float16", "float64"]
    shape: tuple[Positive, ...]

    @model_validator(mode="after")
    def _fits(self) -> AnswerForm:
        if math.prod(self.shape) > _LARGEST:
            raise ValueError(f"an answer of {' × '.join(map(str, self.shape))} numbers is none that could be kept")
        return self


class CacheManifest(Manifest):
    """A result cache: key.onnx makes keys, the folder inner holds the model, lists.safetensors the centres of lists.

    Args:
        unit: What the threshold is in: cosine distance (1 − cosine) between embeddings, or bits between hashes.
        dimensions: Of a key: numbers of an embedding, 64 bits of a hash.
        threshold: An entry at most this far away answers.
        ratio: And only if it is nearer than this share of the distance to the nearest entry with another answer.
        min_confidence: Largest softmax probability that an answer needs to be given again at once.
        trust: Others are given where (agreed + 1) / (runs + 2) is at least this; never at 1.
        capacity: Entries at most.
        eviction: Which entry goes when the cache is full.
        ttl_seconds: How long an entry is good; for ever where None.
        shadow_rate: Share of the hits that the model runs for all the same.
        seed: Of the choice of those.
        probes: Lists that a search looks into; None searches all entries.
        answer: Of the model inside.
    """

    kind: Literal["result_cache"] = "result_cache"
    unit: Literal["cosine", "bits"]
    dimensions: Positive
    threshold: Annotated[float, Field(ge=0)]
    ratio: Annotated[float, Field(gt=0, le=1)]
    min_confidence: Annotated[float, Field(ge=0, le=1)]
    trust: Annotated[float, Field(gt=0.5, le=1)]
    capacity: Capacity
    eviction: Eviction
    ttl_seconds: Annotated[float, Field(gt=0)] | None = None
    shadow_rate: Annotated[float, Field(ge=0, le=1)]
    seed: Annotated[int, Field(ge=0)] = 0
    probes: Positive | None = None
    answer: AnswerForm

    @model_validator(mode="after")
    def _fits_together(self) -> CacheManifest:
        known = {file.name for file in self.files}
        for needed in (KEY, *([LISTS] if self.probes else [])):
            if needed not in known:
                raise ValueError(f"{needed} is not among the files")
        check_known([INNER], self.files)
        limit = 1 if self.unit == "cosine" else BITS
        if self.threshold >= limit:
            raise ValueError(f"the threshold is {self.threshold:g}, and must be less than {limit} ({self.unit})")
        if self.unit == "bits" and (self.dimensions != BITS or self.probes):
            raise ValueError(f"a hash has {BITS} bits and no lists")
        return self

    @property
    def fingerprint(self) -> str:
        """Hash of all files, the model with its preprocessing and what makes the keys: a cache serves no other one."""
        names = "".join(f"{file.sha256} {file.name}\n" for file in sorted(self.files, key=lambda file: file.name))
        return hashlib.sha256(names.encode()).hexdigest()


@dataclass(frozen=True)
class CacheStatistics:
    """What a cache did since it was opened.

    Args:
        entries: That it holds.
        hits: Samples that an entry could answer, shadowed ones too.
        misses: Samples that none could answer.
        unsure: Of those, samples near an entry that may not answer yet, or no longer.
        shadowed: Hits that the model ran for all the same.
        agreed: Of those, how often the entry said the same class.
        precision: Share of them; None where nothing was shadowed.
        precision_low: Lower end of its interval (Clopper-Pearson, 95 %).
        precision_high: Upper end.
        evicted: Entries that had to go since the cache was full.
        expired: Entries that were too old.
    """

    entries: int
    hits: int
    misses: int
    unsure: int
    shadowed: int
    agreed: int
    precision: float | None
    precision_low: float
    precision_high: float
    evicted: int
    expired: int

    @property
    def hit_rate(self) -> float:
        """Share of the samples that an entry could answer; 0 where there were none."""
        return self.hits / max(1, self.hits + self.misses)


class ResultCache:
    """A cache in front of another runner; one lock guards the entries, and the model runs outside of it.

    Two threads that miss with the same input at the same time both run the model, and both store its answer.

    Args:
        key: Session of key.onnx.
        inner: The model.
        manifest: How they work together.
        centres: Of the lists, lists × dimensions; None where it has none.
        file: Where the entries are kept on disk, when `save` is called.
        clock: Seconds since a time that all processes share.
    """

    def __init__(
        self,
        key: ort.InferenceSession,
        inner: Runner,
        manifest: CacheManifest,
        centres: Array | None,
        file: Path,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.inner, self.file, self.manifest = inner, file, manifest
        self.paths = (HIT, *(f"miss: {path}" for path in inner.paths))
        self._key, self._input = key, key.get_inputs()[0].name
        self._fingerprint = manifest.fingerprint
        self._store = Store(
            _index(manifest, centres),
            manifest.capacity,
            manifest.answer.shape,
            manifest.answer.dtype,
            manifest.threshold,
            manifest.ratio,
            manifest.trust,
            manifest.eviction,
            manifest.ttl_seconds,
            clock,
        )
        self._lock, self._random = threading.Lock(), random.Random(manifest.seed)  # noqa: S311
        self._hits = self._misses = self._unsure = self._shadowed = self._agreed = 0

    @classmethod
    def load(
        cls, folder: Path, manifest: CacheManifest, threads: int | None, inside: Callable[[Path], Runner]
    ) -> ResultCache:
        """Open a folder, with the entries that were saved there."""
        key, inner = open_session(folder / KEY, threads), inside(folder / INNER)
        _check_key(folder / KEY, key, inner.first, manifest)
        cache = cls(key, inner, manifest, _centres(folder, manifest), folder / ENTRIES)
        if cache.file.exists():
            cache.restore()
        return cache

    @property
    def first(self) -> ort.InferenceSession:
        """A session of the model inside."""
        return self.inner.first

    @property
    def statistics(self) -> CacheStatistics:
        """What the cache did since it was opened."""
        with self._lock:
            hits, misses, shadowed, agreed = self._hits, self._misses, self._shadowed, self._agreed
            entries, evicted, expired = len(self._store), self._store.evicted, self._store.expired
            unsure = self._unsure
        return CacheStatistics(
            entries,
            hits,
            misses,
            unsure,
            shadowed,
            agreed,
            agreed / shadowed if shadowed else None,
            1 - share_bound(shadowed - agreed, shadowed, 0.975),
            share_bound(agreed, shadowed, 0.975),
            evicted,
            expired,
        )

    def __call__(self, x: Array) -> Result:
        """Run a batch: what is found leaves, and only the rest goes through the model, all of it in one batch.

        A shadowed hit is answered by the model, and its way is that of a miss.

        Raises:
            DataError: The model answers with NaN or infinity; nothing of the batch is stored.
        """
        started = time.perf_counter()
        keys = self.keys(x)
        with self._lock:
            slots = self._store.find(keys)
            hit = [self._store.may_answer(slot) for slot in slots]
            served = self._served(slots, hit)
            found = self._store.answers(slots)
            serials = None if all(served) else self._store.serials(slots)
        looked = time.perf_counter() - started
        path, waited = np.zeros(len(x), np.int64), np.full(len(x), looked)
        if serials is None:
            return Result(found, path, {LOOK_UP: looked}, waited)
        rest = np.flatnonzero(~np.array(served))
        result = self.inner(x[rest])
        self._check(result.logits)
        shadowed = [hit[row] and not served[row] for row in rest.tolist()]
        self._learn(keys[rest], result.logits, [slots[row] for row in rest.tolist()], serials[rest], shadowed)
        found[rest], path[rest], waited[rest] = result.logits, result.path + 1, result.waited + looked
        seconds = {LOOK_UP: looked, **{f"miss: {name}": spent for name, spent in result.seconds.items()}}
        return Result(found, path, seconds, waited)

    def keys(self, x: Array) -> Array:
        """Make the keys of a batch: N × dimensions unit vectors, or N hashes of 64 bits."""
        keys: Array = self._key.run(None, {self._input: x})[0]
        return keys if self.manifest.unit == "cosine" else np.packbits(keys > 0, axis=1).view(np.uint64)[:, 0]

    def clear(self) -> None:
        """Forget all entries."""
        with self._lock:
            self._store.clear()

    def save(self, file: Path | None = None) -> int:
        """Write all entries to disk, and say how many; a killed process leaves the old file or the new one.

        Args:
            file: In place of the one in the model's folder, which is read when that is opened.

        Raises:
            RunFolderError: The disk is full or the folder cannot be written; the old file is intact.
        """
        with self._lock:
            entries = self._store.entries()
        write_entries(file or self.file, self._fingerprint, entries)
        return len(entries["uses"])

    def restore(self, file: Path | None = None) -> int:
        """Replace the entries by those of a file, and say how many there are.

        A file that is damaged, or of another model, is dropped with a warning: the cache is empty then.
        """
        file = file or self.file
        try:
            entries = read_entries(file, self._fingerprint)
            self._check_entries(entries, file)
        except DataError as error:
            warnings.warn(f"{error}. The cache starts empty", stacklevel=2)
            entries = {}
        with self._lock:
            self._store.clear()
            if entries:
                self._store.fill(entries)
            return len(self._store)

    def _learn(self, keys: Array, answers: Array, slots: list[int], serials: Array, shadowed: list[bool]) -> None:
        """Take in what the model answers: to misses, and to hits that are shadowed."""
        sure = (confidence(answers) >= self.manifest.min_confidence).tolist()
        finite = [bool(np.isfinite(key).all()) for key in keys]
        with self._lock:
            for row, (slot, serial) in enumerate(zip(slots, serials.tolist(), strict=True)):
                if shadowed[row]:
                    known = self._store.answers([slot])[0]
                    same = np.array_equal(known.argmax(-1), answers[row].argmax(-1))
                    self._shadowed, self._agreed = self._shadowed + 1, self._agreed + same
                if finite[row]:
                    self._store.learn(slot, serial, keys[row], answers[row], sure[row])

    def _served(self, slots: list[int], hit: list[bool]) -> list[bool]:
        """Count hits and misses, and draw the hits that the model answers all the same."""
        hits, near = sum(hit), sum(slot != NOTHING for slot in slots)
        self._hits, self._misses = self._hits + hits, self._misses + len(hit) - hits
        self._unsure += near - hits
        if not hits or not self.manifest.shadow_rate:
            return hit
        return [found and self._random.random() >= self.manifest.shadow_rate for found in hit]

    def _check(self, answers: Array) -> None:
        form = self.manifest.answer
        if answers.shape[1:] != form.shape or answers.dtype != form.dtype:
            raise ModelError(
                f"the model inside answers {answers.dtype} {list(answers.shape[1:])}, the cache was made for "
                f"{form.dtype} {list(form.shape)}: export the model again"
            )
        if not np.isfinite(answers).all():
            raise DataError("the model answers with NaN or infinity: its weights or a value on the way are broken")

    def _check_entries(self, entries: dict[str, Array], file: Path) -> None:
        form, bits = self.manifest.answer, self.manifest.unit == "bits"
        count = len(entries.get("uses", ()))
        wanted = {
            "keys": (
                np.dtype("uint64" if bits else "float32"),
                (count,) if bits else (count, self.manifest.dimensions),
            ),
            "answers": (np.dtype(form.dtype), (count, *form.shape)),
            "uses": (np.dtype("int64"), (count,)),
            "stored": (np.dtype("float64"), (count,)),
            "runs": (np.dtype("int64"), (count, 3)),
        }
        if {name: (array.dtype, array.shape) for name, array in entries.items()} != wanted:
            raise DataError(f"{file} holds entries of another form")


def _index(manifest: CacheManifest, centres: Array | None) -> Index:
    if manifest.unit == "bits":
        return BitIndex(manifest.capacity)
    if centres is None or manifest.probes is None:
        return ExactIndex(manifest.capacity, manifest.dimensions)
    return ListIndex(manifest.capacity, centres, manifest.probes)


def _check_key(path: Path, key: ort.InferenceSession, like: ort.InferenceSession, manifest: CacheManifest) -> None:
    made = Value(name=key.get_outputs()[0].name, dtype="float32", shape=(manifest.dimensions,), bytes=0)
    check_fits(key, path, None, (made,))
    check_alike(INNER, like, str(path), key)


def _centres(folder: Path, manifest: CacheManifest) -> Array | None:
    if manifest.probes is None:
        return None
    try:
        centres: Array = safetensors.numpy.load_file(folder / LISTS)["centres"]
    except (SafetensorError, KeyError) as error:
        raise ModelError(f"{folder / LISTS} holds no centres: {error}. Export the model again") from error
    if centres.ndim != 2 or centres.shape[1] != manifest.dimensions:
        raise ModelError(f"{folder / LISTS} is for keys of another size: export the model again")
    return centres
