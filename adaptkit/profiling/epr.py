"""Energy-precision ratio: one number for accuracy and energy together."""


def epr(wrong: int, samples: int, energy_mj: float | None, alpha: float = 1.0) -> float | None:
    """Weigh error against energy; lower is better.

    EPR = error^alpha × energy for one inference (Cai et al. 2017, "NeuralPower: Predict and Deploy
    Energy-Efficient Convolutional Neural Networks"). The error is smoothed by
    Laplace's rule, (wrong + 1) / (samples + 2), so that a model without a mistake does not get 0 for any energy.
    Compare only values of the same alpha, machine and method of measuring energy.

    Args:
        wrong: Misclassified samples.
        samples: All samples.
        energy_mj: Millijoules for one inference; None gives None.
        alpha: Above 1 accuracy weighs more.

    Returns:
        EPR in millijoules.

    Example:
        >>> epr(wrong=9, samples=98, energy_mj=2.0), epr(9, 98, 2.0, alpha=2.0).__round__(3)
        (0.2, 0.02)
    """
    if energy_mj is None:
        return None
    error: float = (wrong + 1) / (samples + 2)
    return float(error**alpha * energy_mj)
