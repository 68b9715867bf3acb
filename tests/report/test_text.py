from pathlib import Path

from adaptkit.report import text
from adaptkit.report.schema import MetricValue

WHOLE = """\
resnet56-cifar10-edge: 3.63 × faster, 4.30 × smaller, 0.77 points lost

                                     before     after
  accuracy (test)                   89.71 %   88.94 %  0.77 points lost
  accuracy (validation)             90.11 %   89.34 %  0.77 points lost
  parameters                        855.8 k   742.0 k  1.15 × fewer
  MACs per sample                   125.7 M   92.30 M  1.36 × fewer
  file size                        3.478 MB  809.0 kB  4.30 × smaller
  latency p50, 1 thread, batch 1    2.31 ms  0.636 ms  3.63 × faster (3.56–3.74)
  latency p50, 1 thread, batch 64    131 ms   36.1 ms  3.63 × faster (3.56–3.74)
  peak memory                      71.43 MB  63.43 MB  1.13 × less
  energy per sample (estimate)      34.6 mJ   9.53 mJ  3.63 × less
  EPR (estimate)                    3.56 mJ   1.05 mJ  3.38 × lower

steps, against the baseline (speed at 1 thread, batch 1)
                        test    MACs    file   speed         time
  1 prune.depth      84.12 %  1.36 ×  1.16 ×  1.47 ×         41 s
  2 distill.logits   89.03 %  1.36 ×  1.16 ×  1.48 ×  10 min 55 s
  3 quantize.static  88.94 %  1.36 ×  4.30 ×  3.63 ×         23 s

gates                      limit        found
  max_accuracy_drop  1.00 points  0.77 points  passed
  min_speedup             3.50 ×       3.63 ×  passed

certificate: passed
  top-1 agreement 99.68 % over 10,000 samples; accuracy 88.97 % in PyTorch, 88.94 % in the file
  error 0.412 at most, 0.0183 on average; tolerance 0.0500
  the error first jumps at layer2.6.conv1
  8-bit products can saturate on a CPU without VNNI: 3 layers come within 5 % of it.

notes
  The energy is an estimate: this machine exposes no counter.
  operations not counted: aten::constant_pad_nd

done in 13 min 32 s
  report  runs/x/report.html
  model   runs/x/model.onnx
"""


def test_whole_output(report):
    assert text.render(report, Path("runs/x"), width=100) == WHOLE


def test_narrow_terminal_moves_the_change_below(report):
    lines = text.render(report, width=60).splitlines()
    place = next(index for index, line in enumerate(lines) if "file size" in line)
    assert lines[place + 1] == "      4.30 × smaller"
    figures = lines[: lines.index("steps, against the baseline (speed at 1 thread, batch 1)")]
    assert max(map(len, figures)) <= 60


def test_step_shows_macs_beside_measured_latency_and_spread(report):
    assert text.render_step(report.steps[0], report.baseline) == (
        "prune.depth · 1.36 × fewer MACs · file 1.16 × smaller · test 84.12 % (5.59 points lost) · 41 s\n"
        "  measured latency: 1.47 × faster (1.44–1.51) at 1 thread, batch 1; "
        "1.47 × faster (1.44–1.51) at 1 thread, batch 64"
    )


def test_step_without_test_accuracy_shows_validation(report):
    step = report.steps[0]
    step.figures.accuracy = None
    step.figures.validation_accuracy = 0.85
    assert "validation 85.00 % (5.11 points lost)" in text.render_step(step, report.baseline)


def test_step_of_an_unmeasured_model(report):
    step = report.steps[0]
    step.figures = step.figures.model_copy(update={"accuracy": None, "validation_accuracy": None, "speedup": {}})
    assert text.render_step(step, report.baseline) == (
        "prune.depth · 1.36 × fewer MACs · file 1.16 × smaller · 41 s\n  measured latency: –"
    )


def test_failures_and_bad_layers_are_said(report):
    report.gates[0].passed = False
    report.certificate.passed = False
    report.layers[1].macs_after = report.layers[1].macs_before // 2
    report.layers[1].latency_us_after = report.layers[1].latency_us_before
    shown = text.render(report, width=100)
    assert "max_accuracy_drop  1.00 points  0.77 points  FAILED" in shown
    assert "certificate: FAILED" in shown
    assert "  layer1.0.conv1: 2.00 × fewer MACs, the same" in shown


def test_no_steps_and_nothing_measured(report):
    bare = {"accuracy": None, "validation_accuracy": None, "latency_ms": {}, "speedup": {}, "epr": None}
    bare |= {"peak_memory_bytes": None, "energy_mj": None}
    report.steps, report.gates, report.notes, report.uncounted_ops = [], [], [], []
    report.baseline, report.final = (one.model_copy(update=bare) for one in (report.baseline, report.final))
    shown = text.render(report, width=100)
    assert shown.startswith("resnet56-cifar10-edge: – speed not measured, 4.30 × smaller, – accuracy not measured\n")
    assert "no steps" in shown
    assert "None" not in shown
    assert "gates" not in shown


BESIDE = """\
  top5 (test)                        0.9800    0.9700  0.0100 worse
  ece (test)                        0.05000   0.02500  0.0250 better
  max_error (test)                    12.50     12.50  the same
  roc_auc (test)                          –         –  –
"""
BELOW = """\
metrics of the result over 10,000 test samples
               value      95 % interval                         how
  top5        0.9700   0.9600 to 0.9800     exact (Clopper-Pearson)
  ece        0.02500  0.01000 to 0.2000     exact (Clopper-Pearson)
  max_error    12.50            ≥ 12.50                    at least
  roc_auc          –                  –  all samples are of class 3
"""


def metrics(accuracy, auc):
    found = {"interval": "exact (Clopper-Pearson)", "samples": 10_000, "higher_is_better": True}
    undefined = MetricValue(value=None, samples=10_000, higher_is_better=True, problem="all samples are of class 3")
    return {
        "top5": MetricValue(value=accuracy, low=accuracy - 0.01, high=accuracy + 0.01, **found),
        "ece": MetricValue(value=0.1 - auc / 10, low=0.01, high=0.2, **(found | {"higher_is_better": False})),
        "max_error": MetricValue(value=12.5, low=12.5, **(found | {"higher_is_better": False, "interval": "at least"})),
        "roc_auc": undefined,
    }


def test_metrics_stand_beside_accuracy_and_with_their_intervals_below(report):
    report.baseline.metrics, report.final.metrics = metrics(0.98, 0.5), metrics(0.97, 0.75)
    shown = text.render(report, width=100)
    assert BESIDE in shown
    assert BELOW in shown
