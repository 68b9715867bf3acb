"""The measured tables of conditional computation."""

import json
from typing import Any

from benchmarks.machine import RESULTS
from benchmarks.table_parts import deciles, note


def frame_cache() -> str:
    """What frame-to-frame reuse saves on video."""
    results: dict[str, Any] = json.loads((RESULTS / "frame_cache.json").read_text())
    rows = ["| network, pixels | video | faster | the same, processor time | agrees | outputs off by | paths |"]
    rows.append("|---" * 7 + "|")
    for name, result in results.items():
        if "refused" in result:
            rows.append(f"| {name} | | refused: {result['refused']} | | | | |")
        for video, found in result.get("videos", {}).items():
            wall, processor = (deciles({"median": times["all"], **times}) for times in found["speedup"].values())
            ways = ", ".join(f"{100 * share:.0f} % {way}" for way, share in found["paths"].items() if share)
            rows.append(
                f"| {name} | {video} | {wall} | {processor} | {100 * found['agreement']:.1f} % "
                f"| {100 * found['error']['median']:.1f} %, at most {100 * found['error']['greatest']:.1f} % | {ways} |"
            )
    return "\n".join([*rows, "", note(results, "all frames, and deciles over blocks of 20", "frame_cache.py")])


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
    return "\n".join([*rows, "", note(results, what, "result_cache.py")])


def _lookups(sizes: dict[str, dict[str, float]]) -> str:
    parts = []
    for size, times in sizes.items():
        share = 100 * (times["key"] + times["search"]) / times["model"]
        parts.append(f"{int(size):,}: {share:.1f} % ({times['key']:.0f} + {times['search']:.0f} µs)")
    return "<br>".join(parts)


def activation_cache() -> str:
    """What stopping at known activations saves."""
    results: dict[str, Any] = json.loads((RESULTS / "activation_cache.json").read_text())
    rows = ["| network | memories, and who stops there on the stream | top-1, stream | faster on the stream |"]
    rows[0] += " top-1, test | test images that stop |"
    rows.append("|---" * 6 + "|")
    for name, found in results.items():
        if "refused" in found:
            rows.append(f"| {name} | – | – | – | – | refused: {found['refused']} |")
            continue
        streamed, plain = found["stream"], found["test"]
        rows.append(
            f"| {name} | {_memories(found['points'], streamed['shares'])} | {_top1(streamed)} "
            f"| {streamed['speedup']['whole']:.2f} × "
            f"({streamed['speedup']['p10']:.2f} to {streamed['speedup']['p90']:.2f}) "
            f"| {_top1(plain)} | {100 * (1 - plain['shares'].get('miss', 0)):.1f} % |"
        )
    first = next(found for found in results.values() if "stream" in found)
    settings, streamed = first["settings"], first["stream"]
    what = (
        f"{streamed['requests']:,} requests over {streamed['distinct']:,} test images, drawn by Zipf's law with "
        f"exponent {streamed['exponent']:g}, shifted, mirrored and with noise as for the result cache; "
        f"{settings['entries']:,} known training images, {settings['neighbours']} neighbours, {settings['capacity']:,} "
        f"earlier answers at most, none when the stream begins; a drop of at most "
        f"{100 * settings['max_accuracy_drop']:g} points on validation with {100 * settings['confidence']:g} % "
        f"confidence; {first['test']['images']:,} test images go through a copy opened anew; deciles of turns of a "
        "hundred requests"
    )
    return "\n".join([*rows, "", note(results, what, "activation_cache.py")])


def _memories(points: list[dict[str, str]], shares: dict[str, float]) -> str:
    return "<br>".join(
        f"{each['point']}, {each['of']} samples: {100 * shares.get(f'hit {number}', 0):.1f} %"
        for number, each in enumerate(points)
    )


def _top1(found: dict[str, Any]) -> str:
    before, after = (100 * found["accuracy"][key] for key in ("network", "cache"))
    return f"{before:.2f} → {after:.2f} %"


def early_exit() -> str:
    """Networks with exits beside the same networks whole."""
    results: dict[str, Any] = json.loads((RESULTS / "early_exit.json").read_text())
    rows = ["| network | exits, their top-1, share that leaves | top-1 | lost, points | batch 1 | batch 64 | redrawn |"]
    rows.append("|---" * 7 + "|")
    for name, found in results.items():
        if "adaptkit" not in found:
            rows.append(f"| {name} | {_exits(found, {})} | refused: {found['refused']} | | | | |")
            continue
        own, again = found["adaptkit"], found["resampled"]
        many = own["speedup"]["b64"]
        rows.append(
            f"| {name} | {_exits(found, own)} | {100 * own['accuracy_original']:.2f} → {100 * own['accuracy']:.2f} % "
            f"| {100 * (own['lost'] - own['gained']) / own['samples']:.2f} (at most {100 * found['allowed']:g}) "
            f"| {own['speedup']['b1']:.2f} × | {f'{many:.2f} ×' if many else '–'} | {_again(again)} |"
        )
    what = (
        "mean latency against the same network whole, as integers where the stages are; LeNet as one file; loss "
        "against the original in float32; redrawn: thresholds from draws of the images, judged on all test images"
    )
    return "\n".join([*rows, "", note(results, what, "early_exit.py")])


def _exits(found: dict[str, Any], own: dict[str, Any]) -> str:
    shares = dict(zip(own.get("points", ()), own.get("shares", {}).values(), strict=False))
    parts = [
        f"{point} {100 * accuracy:.1f} %" + (f", {100 * shares[point]:.0f} %" if point in shares else "")
        for point, accuracy in zip(found["points"], found["exit_accuracy"], strict=True)
    ]
    return "<br>".join([*parts, f"end {100 * found['last_accuracy']:.1f} %"])


def _again(again: dict[str, Any]) -> str:
    counts = f"{again['within']} of {again['draws']} within the limit, {again['refused']} of them refused"
    return counts if again["median_drop"] is None else f"{counts}; median {100 * again['median_drop']:.2f} points"


def earlyon() -> str:
    """Adaptkit and earlyon on the same network."""
    results: dict[str, Any] = json.loads((RESULTS / "early_exit.json").read_text())
    rows = ["| network | what | top-1 | mean time | shares that leave |", "|---" * 5 + "|"]
    both = {name: found for name, found in results.items() if "earlyon" in found}
    for name, found in both.items():
        own = found["adaptkit"]
        ways = {key: way for key, way in found["earlyon"].items() if key != "machine"}
        first = next(iter(ways.values()))
        rows.append(
            f"| {name} | adaptkit, ONNX Runtime | {100 * own['accuracy']:.2f} % | {first['adaptkit_ms']:.2f} ms "
            f"| {_shares(own['shares'])} |"
        )
        rows += [
            f"| {name} | earlyon 0.3.0, {key.replace('_', ' ')} training, PyTorch | {100 * way['accuracy']:.2f} % "
            f"| {way['mean_ms']:.2f} ms | {_shares(way['shares'])} |"
            for key, way in ways.items()
        ]
        rows.append(
            f"| {name} | no exits, PyTorch | {100 * own['accuracy_original']:.2f} % "
            f"| {first['whole_in_torch_ms']:.2f} ms | |"
        )
    if not both:
        return "Not measured yet: `python benchmarks/early_exit.py alexnet_cifar --peer`."
    places = {name: found["earlyon"] for name, found in both.items()}
    what = "the same weights, points, images and epochs; batch 1, in turns; exit −1 is the end"
    return "\n".join([*rows, "", note(places, what, "early_exit.py --peer")])


def _shares(shares: dict[str, float]) -> str:
    return ", ".join(f"{name} {100 * share:.0f} %" for name, share in shares.items())


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
