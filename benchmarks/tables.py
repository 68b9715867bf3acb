"""The measured tables of README.md and docs/, from benchmarks/results/: `python -m benchmarks tables` writes them.

A table stands between <!-- table:NAME --> and <!-- /table --> and is replaced there.
"""

import json
import math
import re
import statistics
from collections.abc import Callable, Mapping
from typing import Any

from benchmarks.machine import RESULTS
from benchmarks.table_parts import deciles, note
from benchmarks.tables_conditional import (
    activation_cache,
    cascade,
    early_exit,
    earlyon,
    frame_cache,
    result_cache,
    selector,
)
from benchmarks.tables_coverage import coverage, coverage_peer
from benchmarks.tables_fuzz import fuzz


def main_job() -> str:
    """The before/after table of the main job."""
    rows = ["| recipe | top-1, test | parameters | MACs | ONNX file | latency, batch 1 | latency, batch 64 | run |"]
    rows.append("|---|---|---|---|---|---|---|---|")
    results: dict[str, Any] = json.loads((RESULTS / "main_job.json").read_text())
    for name, result in results.items():
        before, after = result["baseline"], result["final"]
        rows.append(
            f"| `{name}` | {100 * before['accuracy']:.2f} → {100 * after['accuracy']:.2f} % "
            f"| {_times(before['parameters'], after['parameters'])} fewer "
            f"| {_times(before['macs'], after['macs'])} fewer | {_times(before['bytes'], after['bytes'])} smaller "
            f"| {_speedup(after, 't1_b1')} | {_speedup(after, 't1_b64')} | {result['seconds']:.0f} s |"
        )
    what = "ratios to the fp32 file, median and quartiles of alternating runs"
    return "\n".join([*rows, "", note(results, what, "main_job.py")])


def distillation() -> str:
    """What each kind of distillation is worth to a small student."""
    result: dict[str, Any] = json.loads((RESULTS / "distillation.json").read_text())
    rows = ["| kind | with a teacher | without | difference, points | beats plain training | over `distill.logits` |"]
    rows.append("|---|---|---|---|---|---|")
    for kind, figures in result["kinds"].items():
        name, _, how = kind.partition(",")
        rows.append(
            f"| `{name}`{how and ',' + how} | {_both_tasks(figures, 'with')} | {_both_tasks(figures, 'without')} "
            f"| {_points(figures)} | {'yes' if figures['beats'] else 'no'} | {_points(figures.get('over_logits'))} |"
        )
    place = result["machine"]
    rows += [
        "",
        f"Test accuracy on the digits, mean of {result['seeds']} seeds, differences with their 95 % intervals; "
        f"{result['samples_a_class']} labelled samples a class, {result['epochs']} epochs, {result['student']}; "
        f"the teacher reaches {100 * result['teacher_accuracy']:.1f} %; commit {place['commit']}; "
        "`python benchmarks/distillation.py`.",
    ]
    return "\n".join(rows)


def quantization_draws() -> str:
    """What integers after training lose, over several draws of calibration images."""
    results: dict[str, Any] = json.loads((RESULTS / "quantization_draws.json").read_text())
    rows = [
        "| network | quantizer | lost, points: mean of the draws | least to most | agrees, mean |",
        "|---" * 5 + "|",
    ]
    draws = 0
    for name, result in results.items():
        for way, found in result["ways"].items():
            lost = [100 * one["lost"] for one in found]
            agrees, draws = 100 * statistics.mean(one["agreement"] for one in found), len(found)
            rows.append(
                f"| {name} | {way} | {statistics.mean(lost):.2f} ± {_error_of_mean(lost):.2f} "
                f"| {min(lost):.2f} to {max(lost):.2f} | {agrees:.2f} % |"
            )
    what = f"{draws} draws of 512 training images, the mean with its standard error over draws"
    return "\n".join([*rows, "", note(results, what, "quantization_draws.py")])


def _error_of_mean(values: list[float]) -> float:
    return statistics.stdev(values) / math.sqrt(len(values))


def quantization() -> str:
    """Accuracy and latency of integers after training, beside the peers."""
    results: dict[str, Any] = json.loads((RESULTS / "quantization.json").read_text())
    rows = ["| network | quantizer | top-1 | lost, points | agrees | faster, batch 1 | faster, batch 64 | ONNX file |"]
    rows.append("|---" * 8 + "|")
    for name, result in results.items():
        exact = result["ways"]["float32"]["accuracy"]
        for way, found in result["ways"].items():
            if "refused" in found:
                rows.append(f"| {name} | {way} | ONNX Runtime does not run the file | – | – | – | – | – |")
                continue
            single, many = (deciles(found["speedup"][batch]) for batch in ("b1", "b64"))
            error = f" ± {100 * found['standard_error']:.2f}" if "standard_error" in found else ""
            agrees = f"{100 * found['agreement']:.2f} %" if "agreement" in found else "–"
            rows.append(
                f"| {name} | {way} | {100 * found['accuracy']:.2f} % | {100 * (exact - found['accuracy']):.2f}{error} "
                f"| {agrees} | {single} | {many} | {found['bytes'] / 1e6:.2f} MB |"
            )
    return "\n".join([*rows, "", note(results, "median and deciles of alternating runs", "quantization.py")])


def mixed_precision() -> str:
    """Weight bytes against accuracy."""
    results: dict[str, Any] = json.loads((RESULTS / "mixed_precision.json").read_text())
    rows = ["| network | fewer weight bytes | top-1, test | lost, points | epochs | file agrees with the simulator |"]
    rows.append("|---" * 6 + "|")
    for name, found in results.items():
        before, after = found["accuracy_float"], found["accuracy"]
        rows.append(
            f"| {name} | {found['weight_ratio']:.2f} × | {100 * before:.2f} → {100 * after:.2f} % "
            f"| {100 * (before - after):.2f} | {found['epochs']:g} | {100 * found['agreement']:.2f} % |"
        )
    return "\n".join([*rows, "", note(results, "one seed", "mixed_precision.py")])


def load_balanced() -> str:
    """A character LSTM with a tenth of its weights."""
    result: dict[str, Any] = json.loads((RESULTS / "load_balanced.json").read_text())
    rows = ["| seed | weights of the LSTM | dense | pruned | dense, trained on | busiest element to the mean |"]
    rows.append("|---|---|---|---|---|---|")
    for run in result["runs"]:
        dense, pruned, longer = (run["perplexity"][key] for key in ("dense", "pruned", "dense_trained_on"))
        rows.append(
            f"| {run['seed']} | {run['weights']:,} → {run['kept']:,} | {dense:.3f} "
            f"| {pruned:.3f} ({_percent(pruned, dense)}) | {longer:.3f} ({_percent(longer, dense)}) "
            f"| {run['busiest_to_mean']:.3f} |"
        )
    rows += [
        "",
        f"Perplexity of the next character on the last twentieth of the text; {result['hidden']} hidden units, "
        f"{result['elements']} processing elements, {result['dense_epochs']} epochs dense, then "
        f"{result['pruning_epochs']} either way (*trained on*: without pruning); commit {result['machine']['commit']}; "
        "`python benchmarks/load_balanced.py`.",
    ]
    return "\n".join(rows)


def factorization() -> str:
    """How long a whole model takes to factorize."""
    result: dict[str, Any] = json.loads((RESULTS / "factorization.json").read_text())
    rows = ["| | CPU time, median | adaptkit is faster by | relative error of the weights |", "|---|---|---|---|"]
    names = {
        "adaptkit": "`factorize.tucker`, on the model",
        "tensorly": "tensorly `partial_tucker`, its own settings",
        "tensorly_as_close": "tensorly, tolerance 1e-3",
    }
    for key, name in names.items():
        ratio, spread = result["times_faster"].get(key), result["times_faster_range"].get(key)
        faster = f"{ratio:.1f} × ({spread[0]:.1f} to {spread[1]:.1f})" if ratio else "–"
        error = result["mean_relative_error"][key]
        rows.append(f"| {name} | {result['median_seconds'][key]:.2f} s | {faster} | {error:.5f} |")
    place = result["machine"]
    rows += [
        "",
        f"{result['what']}, {result['layers']} layers; {result['turns']} turns, {result['threads']} thread of "
        f"{place['cpu']}; tensorly {result['tensorly_version']}; commit {place['commit']}; "
        "`python benchmarks/factorization.py`.",
    ]
    return "\n".join(rows)


def sparsity() -> str:
    """What zeros cost in accuracy and save in bytes, method by method."""
    result: dict[str, Any] = json.loads((RESULTS / "sparsity.json").read_text())
    rows = ["| method | accuracy | with 8-bit integers | file | with 8-bit integers | latency, batch 1 | batch 64 |"]
    rows.append("|---|---|---|---|---|---|---|")
    for name, figures in result["methods"].items():
        rows.append(
            f"| {name} | {100 * figures['accuracy']:.2f} % | {100 * figures['accuracy_int8']:.2f} % "
            f"| {figures['bytes'] / 1e3:.0f} kB | {figures['bytes_int8'] / 1e3:.0f} kB "
            f"| {_speedup(figures, 't1_b1')} | {_speedup(figures, 't1_b64')} |"
        )
    place = result["machine"]
    rows += [
        "",
        f"ResNet-20 on CIFAR-10, test split, accuracy of the ONNX files; methods that train get {result['epochs']:g} "
        f"epochs in all; latency against the dense file, ONNX Runtime {place['onnxruntime']}, one thread; "
        f"commit {place['commit']}; `python benchmarks/sparsity.py`.",
    ]
    return "\n".join(rows)


def _percent(after: float, before: float) -> str:
    return f"{100 * (after / before - 1):+.1f} %"


def _points(figures: dict[str, Any] | None) -> str:
    if figures is None:
        return "–"
    centre, low, high = (f"{100 * figures[key]:+.1f}" for key in ("difference", "low", "high"))
    return f"{centre} ({low} to {high})"


def _both_tasks(figures: dict[str, Any], side: str) -> str:
    mean = f"{100 * figures[side]:.1f} %"
    if f"{side}_old" not in figures:
        return mean
    return f"{mean} (old task {100 * figures[f'{side}_old']:.1f} %, new {100 * figures[f'{side}_new']:.1f} %)"


def scale() -> str:
    """Peak memory and time of pruning and quantizing large models."""
    result: dict[str, Any] = json.loads((RESULTS / "scale.json").read_text())
    rows = ["| parameters | pruning | peak memory | to the model's own | above an empty process | time | file |"]
    rows.append("|---|---|---|---|---|---|---|")
    for pruning, sizes in result.items():
        for row in sizes.values():
            grown = (row["peak_bytes"] - row["stages"]["start"]["peak_bytes"]) / row["model_bytes"]
            rows.append(
                f"| {row['parameters'] / 1e6:,.0f} M | `prune.{pruning}` | {row['peak_bytes'] / 1e9:.2f} GB "
                f"| {row['peak_to_model']:.2f} × | {grown:.2f} × | {row['seconds']:.0f} s "
                f"| {row['file_bytes'] / 1e6:,.0f} MB |"
            )
    place = next(iter(next(iter(result.values())).values()))["machine"]
    rows += ["", f"One thread of {place['cpu']}; torch {place['torch']}; `python benchmarks/scale.py`."]
    return "\n".join(rows)


def _times(before: float, after: float) -> str:
    return f"{before / after:.1f} ×"


def _speedup(figures: dict[str, Any], key: str) -> str:
    ratio = figures["speedup"].get(key)
    return f"{ratio['median']:.2f} × lower ({ratio['low']:.2f} to {ratio['high']:.2f})" if ratio else "–"


TABLES = {
    "main_job": main_job,
    "quantization": quantization,
    "quantization_draws": quantization_draws,
    "mixed_precision": mixed_precision,
    "frame_cache": frame_cache,
    "distillation": distillation,
    "result_cache": result_cache,
    "activation_cache": activation_cache,
    "load_balanced": load_balanced,
    "factorization": factorization,
    "sparsity": sparsity,
    "coverage": coverage,
    "coverage_peer": coverage_peer,
    "early_exit": early_exit,
    "earlyon": earlyon,
    "cascade": cascade,
    "selector": selector,
    "scale": scale,
    "fuzz": fuzz,
}


def filled(text: str, more: Mapping[str, Callable[[], str]]) -> str:
    """Write every table anew that a page has a place for; `more` are tables that are not of this module."""
    for name, made in {**TABLES, **more}.items():
        pattern = re.compile(rf"(<!-- table:{name} -->\n).*?(<!-- /table -->)", re.DOTALL)
        if pattern.search(text):
            table = made()
            text = pattern.sub(lambda match, table=table: f"{match[1]}{table}\n{match[2]}", text)  # type: ignore[misc]
    return text
