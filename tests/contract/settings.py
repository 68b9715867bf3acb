"""Settings under which the battery runs each technique; one line for each name in TECHNIQUES."""

SETTINGS = {
    "prune.structured": {"macs": 0.6, "round_to": 1, "min_channels": 2},
    "prune.depth": {"blocks": 1},
    "prune.magnitude": {"sparsity": 0.8},
    "prune.gradual": {"epochs": 2, "fit": {"learning_rate": 0.01}},
    "prune.movement": {"epochs": 2, "fit": {"learning_rate": 0.01}},
    "prune.n_m": {},
    "distill.logits": {"epochs": 0.5, "fit": {"learning_rate": 0.01}},
    "distill.features": {"epochs": 0.5, "fit": {"learning_rate": 0.01}},
    "distill.decoupled": {"epochs": 0.5, "fit": {"learning_rate": 0.01}},
    "distill.dist": {"epochs": 0.5, "fit": {"learning_rate": 0.01}},
    "distill.attention": {"epochs": 0.5, "fit": {"learning_rate": 0.01}},
    "distill.multi_teacher": {"teachers": ({"zoo": "lenet5_digits"},), "epochs": 0.5, "fit": {"learning_rate": 0.01}},
    "distill.adversarial": {"epochs": 0.5, "fit": {"learning_rate": 0.01}},
    "distill.cross_modal": {"student_view": {"size": 4}, "epochs": 0.5, "fit": {"learning_rate": 0.01}},
    "distill.lifelong": {"old_classes": 5, "epochs": 0.5, "fit": {"learning_rate": 0.01}},
    "factorize.svd": {"undo_slower": False, "round_to": 1},
    "factorize.sparse_svd": {"undo_slower": False, "round_to": 1},
    "factorize.tucker": {"rank": 0.5, "undo_slower": False},
    "factorize.cp": {"rank": 24, "undo_slower": False},
    "quantize.static": {"calibration": 64},
}
