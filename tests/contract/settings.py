"""Settings under which the battery runs each technique; one line for each name in TECHNIQUES."""

SETTINGS = {
    "prune.structured": {"macs": 0.6, "round_to": 1, "min_channels": 2},
    "prune.depth": {"blocks": 1},
    "distill.logits": {"epochs": 0.5, "fit": {"learning_rate": 0.01}},
    "distill.features": {"epochs": 0.5, "fit": {"learning_rate": 0.01}},
    "quantize.static": {"calibration": 64},
}
