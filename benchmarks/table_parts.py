"""What the measured tables have in common."""

from typing import Any


def note(results: dict[str, Any], what: str, script: str) -> str:
    """Say where, with which commits and by which command results were measured."""
    place = next(iter(results.values()))["machine"]
    commits = ", ".join(sorted({result["machine"]["commit"] for result in results.values()}))
    without = [name for name, result in results.items() if not result["machine"]["vnni"]]
    vnni = "with VNNI" if not without else "without VNNI"
    if 0 < len(without) < len(results):
        vnni = f"with VNNI ({', '.join(without)}: without)"
    return (
        f"{place['cores']} cores of {place['cpu']}, {vnni}; ONNX Runtime {place['onnxruntime']}, one thread; "
        f"{what}; commit {commits}; `python benchmarks/{script}`."
    )


def deciles(ratio: dict[str, float]) -> str:
    """Write a median with its deciles."""
    return f"{ratio['median']:.2f} × ({ratio['p10']:.2f} to {ratio['p90']:.2f})"
