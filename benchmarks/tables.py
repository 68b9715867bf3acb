"""Write the measured tables of README.md and docs/ from benchmarks/results/.

    python benchmarks/tables.py

A table stands between <!-- table:NAME --> and <!-- /table --> and is replaced there.
"""

import json
import re
import statistics
import textwrap
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results"
_FEW, _WIDEST = 4, 300
"""Of a list, and of a remark in letters: a table cell holds no more."""


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
    return "\n".join([*rows, "", _note(results, what, "main_job.py")])


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


def coverage() -> str:
    """What works on which model, and what the dependency engine takes."""
    table: dict[str, Any] = json.loads((RESULTS / "coverage.json").read_text())
    columns = ("prune", "factorize", "int8", "export")
    rows = ["| model | " + " | ".join(columns) + " | seconds | left alone, or what fails |"]
    rows.append("|---" * (len(columns) + 3) + "|")
    for name, cells in table["models"].items():
        found = [cells.get(column) for column in columns]
        seconds = cells.get("prune", {}).get("seconds")
        rows.append(
            f"| `{name}` | {' | '.join(map(_sign, found))} | {'–' if seconds is None else f'{seconds:.1f}'} "
            f"| {_remarks(dict(zip(columns, found, strict=True)))} |"
        )
    place = table["machine"]["prune"]
    counts = (f"{column} {_passed(table, column)}" for column in columns if _tried(table, column))
    apart = [cells["int8"]["difference"] for cells in table["models"].values() if "difference" in cells.get("int8", {})]
    rows += [
        "",
        f"Passed, of those tried: {', '.join(counts)}; “–” has not been run. Outputs in 8 bits are "
        f"{statistics.median(apart):.3f} deviations away from the float model's (median; at most {max(apart):.3f}). "
        f"Seconds of the processor to find the "
        f"groups and to cut, one thread of {place['cpu']}, {place['cores']} cores at a load average of "
        f"{place['load_average']}, which makes them longer; torch {place['torch']}; commit {place['commit']}; "
        "`python benchmarks/coverage.py`.",
    ]
    return "\n".join(rows)


def coverage_peer() -> str:
    """How long the analysis and the cut take, here and with Torch-Pruning."""
    table: dict[str, Any] = json.loads((RESULTS / "coverage.json").read_text())
    both = [cells["peer"] for cells in table["models"].values() if cells.get("peer", {}).get("ok")]
    handled = [cell for cell in both if cell["torch_pruning"]["ok"]]
    ours = sum(cell["seconds"] for cell in handled)
    theirs = sum(cell["torch_pruning"]["seconds"] for cell in handled)
    place = table["machine"]["peer"]
    return (
        f"Timed so far on {len(both)} of torchvision's classification models; Torch-Pruning 1.6.1 handles "
        f"{len(handled)} of them without exceptions by hand. For those together adaptkit takes {ours:.1f} s and "
        f"Torch-Pruning {theirs:.1f} s of one thread of {place['cpu']}, model by model in the same process, on the "
        f"same small images, {place['cores']} cores at a load average of {place['load_average']}; "
        f"commit {place['commit']}; `python benchmarks/coverage.py --columns peer`."
    )


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
            single, many = (_deciles(found["speedup"][batch]) for batch in ("b1", "b64"))
            error = f" ± {100 * found['standard_error']:.2f}" if "standard_error" in found else ""
            agrees = f"{100 * found['agreement']:.2f} %" if "agreement" in found else "–"
            rows.append(
                f"| {name} | {way} | {100 * found['accuracy']:.2f} % | {100 * (exact - found['accuracy']):.2f}{error} "
                f"| {agrees} | {single} | {many} | {found['bytes'] / 1e6:.2f} MB |"
            )
    return "\n".join([*rows, "", _note(results, "median and deciles of alternating runs", "quantization.py")])


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
    return "\n".join([*rows, "", _note(results, "one seed", "mixed_precision.py")])


def frame_cache() -> str:
    """What frame-to-frame reuse saves on video."""
    results: dict[str, Any] = json.loads((RESULTS / "frame_cache.json").read_text())
    rows = ["| network, pixels | video | faster | the same, processor time | agrees | outputs off by | paths |"]
    rows.append("|---" * 7 + "|")
    for name, result in results.items():
        if "refused" in result:
            rows.append(f"| {name} | | refused: {result['refused']} | | | | |")
        for video, found in result.get("videos", {}).items():
            wall, processor = (_deciles({"median": times["all"], **times}) for times in found["speedup"].values())
            ways = ", ".join(f"{100 * share:.0f} % {way}" for way, share in found["paths"].items() if share)
            rows.append(
                f"| {name} | {video} | {wall} | {processor} | {100 * found['agreement']:.1f} % "
                f"| {100 * found['error']['median']:.1f} %, at most {100 * found['error']['greatest']:.1f} % | {ways} |"
            )
    return "\n".join([*rows, "", _note(results, "all frames, and deciles over blocks of 20", "frame_cache.py")])


def result_cache() -> str:
    """A stream through a result cache, and what a look-up takes."""
    results: dict[str, Any] = json.loads((RESULTS / "result_cache.json").read_text())
    rows = ["| key and search | hits | right of these | accuracy, network → cache | faster on the stream |"]
    rows[0] += " look-up to model, by entries |"
    rows.append("|---" * 6 + "|")
    for name, found in results.items():
        own, given = (100 * found["accuracy"][key] for key in ("model", "cache"))
        rows.append(
            f"| {name} | {100 * found['hit_rate']:.1f} % | {100 * found['precision']:.2f} % "
            f"(at least {100 * found['precision_low']:.2f}) | {own:.2f} → {given:.2f} % "
            f"| {found['speedup']['whole']:.2f} × ({found['speedup']['p10']:.2f} to {found['speedup']['p90']:.2f}) "
            f"| {_lookups(found['lookup_us'])} |"
        )
    first = next(iter(results.values()))
    changes = first["perturbations"]
    what = (
        f"{first['requests']:,} requests over {first['distinct']:,} of the 10,000 test images of CIFAR-10, drawn by "
        f"Zipf's law with exponent {first['exponent']:g}, each shifted by up to {32 * changes['crop']:.0f} pixels, "
        f"mirrored or not, with noise of {changes['noise']:g}; ResNet-56; right: the network's own answer to that "
        "request, with the lower end of a one-sided 95 % interval; deciles of turns of a hundred requests; a look-up "
        "makes the key and searches"
    )
    return "\n".join([*rows, "", _note(results, what, "result_cache.py")])


def _lookups(sizes: dict[str, dict[str, float]]) -> str:
    parts = []
    for size, times in sizes.items():
        share = 100 * (times["key"] + times["search"]) / times["model"]
        parts.append(f"{int(size):,}: {share:.1f} % ({times['key']:.0f} + {times['search']:.0f} µs)")
    return "<br>".join(parts)


def activation_cache() -> str:
    """What stopping at known activations saves."""
    results: dict[str, Any] = json.loads((RESULTS / "activation_cache.json").read_text())
    rows = ["| network | points kept | stop there | top-1, test | faster at batch 1 |", "|---" * 5 + "|"]
    for name, found in results.items():
        if "refused" in found:
            rows.append(f"| {name} | – | – | – | refused: {found['refused']} |")
            continue
        before, after = (100 * found["accuracy"][key] for key in ("network", "cache"))
        shares = ", ".join(f"{100 * share:.1f} %" for share in found["shares"][:-1])
        rows.append(
            f"| {name} | {', '.join(found['points'])} | {shares} | {before:.2f} → {after:.2f} % "
            f"| {found['speedup']['whole']:.2f} × ({found['speedup']['p10']:.2f} to {found['speedup']['p90']:.2f}) |"
        )
    first = next(iter(results.values()))["settings"]
    what = (
        f"{first['entries']:,} known training images, {first['neighbours']} neighbours, a drop of at most "
        f"{100 * first['max_accuracy_drop']:g} points on validation with {100 * first['confidence']:g} % confidence; "
        "deciles of turns of a hundred requests"
    )
    return "\n".join([*rows, "", _note(results, what, "activation_cache.py")])


def _note(results: dict[str, Any], what: str, script: str) -> str:
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


def _deciles(ratio: dict[str, float]) -> str:
    return f"{ratio['median']:.2f} × ({ratio['p10']:.2f} to {ratio['p90']:.2f})"


def _sign(cell: dict[str, Any] | None) -> str:
    if cell is None:
        return "–"
    parts = f" ({', '.join(f'`{part}`' for part in cell['parts'])})" if "parts" in cell else ""
    return f"yes{parts}" if cell["ok"] else f"**no**{parts}"


def _tried(table: dict[str, Any], column: str) -> list[dict[str, Any]]:
    return [cells[column] for cells in table["models"].values() if column in cells]


def _passed(table: dict[str, Any], column: str) -> str:
    tried = _tried(table, column)
    return f"{sum(cell['ok'] for cell in tried)} of {len(tried)}"


def _remarks(cells: dict[str, dict[str, Any] | None]) -> str:
    left = _first([_short_list(line) for line in (cells["prune"] or {}).get("left_alone", [])])
    failed = [f"{column}: {_reason(cell)}" for column, cell in cells.items() if cell and not cell["ok"]]
    lines = (textwrap.shorten(line, _WIDEST, placeholder=" …") for line in (*left, *failed))
    return "<br>".join(line.replace("|", "\\|") for line in lines)


def _reason(cell: dict[str, Any]) -> str:
    """Say why a cell failed."""
    if "error" in cell:
        return str(cell["error"])
    if not cell.get("trains", True):
        return "the loss of the training step is not finite"
    return f"the outputs are {cell['difference']:.2g} apart"


def _short_list(line: str) -> str:
    """Name the first few of the things that a sentence lists after its last colon."""
    start, colon, listed = line.rpartition(": ")
    return f"{start}{colon}{', '.join(_first(listed.split(', ')))}" if colon else line


def _first(items: list[str]) -> list[str]:
    return items if len(items) <= _FEW else [*items[:_FEW], f"and {len(items) - _FEW} more"]


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


def cascade() -> str:
    """Cascades of ResNets beside the large one alone."""
    result: dict[str, Any] = json.loads((RESULTS / "cascade.json").read_text())
    rows = ["| cascade | top-1 | lost, points | delegated | mean time | faster | worst case | redrawn |"]
    rows.append("|---|---|---|---|---|---|---|---|")
    for name, figures in result["cascades"].items():
        if "refused" in figures:
            rows.append(f"| {name} | refused: {figures['refused'].split(': ')[1].split('. ')[0]} | | | | | | |")
            continue
        again = figures["resampled"]
        rows.append(
            f"| {name} | {100 * figures['accuracy_original']:.2f} → {100 * figures['accuracy']:.2f} % "
            f"| {100 * (figures['lost'] - figures['gained']) / figures['samples']:.2f} "
            f"| {100 * figures['shares'].get('model 1', 0):.1f} % | {figures['mean_ms']:.2f} ms "
            f"| {figures['speedup']:.2f} × | {figures['worst_ms'] / figures['alone_ms']:.2f} × the large one "
            f"| {again['within']} of {again['draws']} within the limit, median "
            f"{100 * again['median_drop']:.2f} points at {again['median_speedup']:.2f} × |"
        )
    place = result["machine"]
    rows += [
        "",
        f"Limit {100 * result['max_accuracy_drop']:g} points, bounded with 95 % confidence. Top-1 and loss against "
        "ResNet-56 in float32, times against the large one of the row, on one half of the CIFAR-10 test images; "
        "thresholds from the other half; redrawn: thresholds from 5,000 draws of the 10,000 images, judged on all; "
        f"time of the one thread, batch 1; ONNX Runtime {place['onnxruntime']}, load average "
        f"{place['load_average']}; commit {place['commit']}; `python benchmarks/cascade.py`.",
    ]
    return "\n".join(rows)


def selector() -> str:
    """A selector of three networks beside always each of them."""
    result: dict[str, Any] = json.loads((RESULTS / "selector.json").read_text())
    rows = ["| what answers | top-1 | mean time | faster than always the large one |", "|---|---|---|---|"]
    large = result["each_ms"]["resnet56"]
    rows += [
        f"| always {name} | {100 * accuracy:.2f} % | {result['each_ms'][name]:.2f} ms "
        f"| {large / result['each_ms'][name]:.2f} × |"
        for name, accuracy in result["accuracy_each"].items()
    ]
    used = zip(result["models"], range(len(result["models"])), strict=True)
    shares = ", ".join(f"{name} {100 * result['shares'].get(f'model {place}', 0):.1f} %" for name, place in used)
    rows.append(
        f"| selector: {shares} | {100 * result['accuracy']:.2f} % | {result['mean_ms']:.2f} ms "
        f"| {result['speedup']:.2f} × |"
    )
    place, first = result["machine"], result["judged"][0]
    rows += [
        "",
        f"A look at the image takes {1e3 * result['look_ms']:.0f} µs ({len(result['features'])} features, "
        f"{first['k']} neighbours), and is part of the time. Such votes tell whether ResNet-20 is right with an "
        f"area under the curve of {result['auc_smallest']:.2f} (0.5 is chance). Limit "
        f"{100 * result['max_accuracy_drop']:g} points; halves, times and machine as above, load average "
        f"{place['load_average']}; commit {place['commit']}; `python benchmarks/selector.py`.",
    ]
    return "\n".join(rows)


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
    "cascade": cascade,
    "selector": selector,
    "scale": scale,
}


def main() -> None:
    """Rewrite every table in place."""
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]:
        text = path.read_text()
        for name, made in TABLES.items():
            pattern = re.compile(rf"(<!-- table:{name} -->\n).*?(<!-- /table -->)", re.DOTALL)
            if pattern.search(text):
                table = made()
                text = pattern.sub(lambda match, table=table: f"{match[1]}{table}\n{match[2]}", text)
        path.write_text(text)


if __name__ == "__main__":
    main()
