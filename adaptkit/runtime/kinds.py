"""The table of what a manifest may describe, and what runs it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from adaptkit.runtime.activation_cache import ActivationCache, ActivationManifest
from adaptkit.runtime.cascade import Cascade, CascadeManifest
from adaptkit.runtime.early_exit import ExitsManifest, StagedExits
from adaptkit.runtime.frame_cache import FrameCache
from adaptkit.runtime.frame_manifest import FramesManifest
from adaptkit.runtime.manifest import Manifest
from adaptkit.runtime.result import Runner
from adaptkit.runtime.result_cache import CacheManifest, ResultCache
from adaptkit.runtime.selector import Selector, SelectorManifest

OpenFolder = Callable[[Path], Runner]
"""Opens a folder inside of another one, whatever it holds."""


class Kind(NamedTuple):
    """One kind of conditional model.

    Args:
        manifest: Its part of manifest.json.
        open: Makes a runner of a folder, its manifest, a number of threads, and what opens folders inside.
    """

    manifest: type[Manifest]
    open: Callable[[Path, Any, int | None, OpenFolder], Runner]


KINDS: dict[str, Kind] = {
    "early_exit": Kind(ExitsManifest, StagedExits.load),
    "frame_cache": Kind(FramesManifest, FrameCache.load),
    "cascade": Kind(CascadeManifest, Cascade.load),
    "selector": Kind(SelectorManifest, Selector.load),
    "result_cache": Kind(CacheManifest, ResultCache.load),
    "activation_cache": Kind(ActivationManifest, ActivationCache.load),
}
