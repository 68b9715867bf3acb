"""The peers: which there are, how they are installed, and why one is not there."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import subprocess
import sys
import venv
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Peer:
    """A package to compare with.

    Args:
        package: As pip calls it.
        module: As Python imports it.
        requirements: What pip is given.
        apart: Whether its requirements clash with adaptkit's, so that it gets an environment of its own.
        layered: Whether that environment sees the packages of this one, adaptkit and torch among them. Such a peer can
            be imported here, too: only what pip believes that it requires clashes.
        options: Of pip.
    """

    package: str
    module: str
    requirements: tuple[str, ...]
    apart: bool = False
    layered: bool = False
    options: tuple[str, ...] = ()


_FVCORE = ("fvcore", "iopath", "portalocker", "tabulate", "termcolor", "yacs")
"""What earlyon imports of its requirements, and what that imports."""

PEERS = {
    peer.package: peer
    for peer in (
        Peer("torch-pruning", "torch_pruning", ("torch-pruning==1.6.1",)),
        Peer("tensorly-torch", "tltorch", ("tensorly-torch>=0.5",)),
        Peer("torchdistill", "torchdistill", ("torchdistill>=1.1",)),
        Peer("faiss-cpu", "faiss", ("faiss-cpu>=1.10",)),
        Peer("usearch", "usearch", ("usearch>=2.16",)),
        Peer("hnswlib", "hnswlib", ("hnswlib>=0.8",)),
        Peer("nncf", "nncf", ("nncf==3.4.0", "onnx", "onnxruntime"), apart=True),
        Peer(
            "onnx-neural-compressor",
            "onnx_neural_compressor",
            ("onnx-neural-compressor", "prettytable", "scipy"),
            apart=True,
        ),
        Peer("fasterai", "fasterai", ("fasterai==0.4.1", "einops"), apart=True, layered=True, options=("--no-deps",)),
        Peer("earlyon", "earlyon", ("earlyon==0.3.0", *_FVCORE), apart=True, layered=True, options=("--no-deps",)),
    )
}


@dataclass
class Peers:
    """The peers of a run; remembers of each that was asked for its version, or why it is missing.

    Args:
        folder: Where environments are made, one for each peer that stands apart; None makes none.
    """

    folder: Path | None = None
    found: dict[str, dict[str, str]] = field(default_factory=dict)

    def module(self, name: str, part: str = "") -> ModuleType | None:
        """Import a peer into this process; None, and a note, where that does not work."""
        peer = PEERS[name]
        if peer.layered:
            python = self.python(name)
            if python is None:
                return None
            sys.path.append(_packages(python))
        try:
            module = importlib.import_module(f"{peer.module}{part}")
        except ImportError as error:
            self.found[name] = {"missing": self._why(peer, error)}
            return None
        self.found[name] = {"version": importlib.metadata.version(name)}
        return module

    def python(self, name: str) -> Path | None:
        """Give the interpreter of a peer's own environment, which is made where it is not there yet."""
        peer = PEERS[name]
        if self.folder is None:
            self.found[name] = {"missing": "needs an environment of its own: --peers-env DIR makes it"}
            return None
        python = self.folder / name / "bin" / "python"
        try:
            if not (self.folder / name / "installed").is_file():
                _make(self.folder / name, peer)
            version = _call(python, "-c", f"import {peer.module}, importlib.metadata as m; print(m.version('{name}'))")
        except subprocess.CalledProcessError as error:
            self.found[name] = {"missing": f"does not install or import: {_last_line(error)}"}
            return None
        self.found[name] = {"version": version.split()[-1]}
        return python

    def _why(self, peer: Peer, error: ImportError) -> str:
        if importlib.util.find_spec(peer.module) is None:
            return "not installed: pip install 'adaptkit[bench]'"
        return f"does not import: {error}"


def _make(folder: Path, peer: Peer) -> None:
    venv.create(folder, with_pip=True, clear=True)
    python = folder / "bin" / "python"
    if peer.layered:
        packages = Path(_packages(python))
        ours = [entry for entry in sys.path if entry.endswith("site-packages")]
        (packages / "adaptkit-bench.pth").write_text("\n".join([*ours, str(ROOT)]) + "\n")
    _call(python, "-m", "pip", "install", "--quiet", *peer.options, *peer.requirements)
    (folder / "installed").touch()


def _packages(python: Path) -> str:
    return _call(python, "-c", "import site; print(site.getsitepackages()[0])").strip()


def _call(python: Path, *arguments: str) -> str:
    done: Any = subprocess.run([str(python), *arguments], check=True, capture_output=True, text=True)
    return str(done.stdout)


def _last_line(error: subprocess.CalledProcessError) -> str:
    lines = [line for line in (error.stderr or error.stdout or "").splitlines() if line.strip()]
    errors = [line for line in lines if "error" in line.lower()]
    return (errors or lines or [f"exit code {error.returncode}"])[-1].strip()
