"""The suites, by name."""

from benchmarks.harness.suite import Suites
from benchmarks.suites import cache_lookup, chain, distillation, early_exit, factorization, pruning, quantization

SUITES: Suites = {
    "pruning": pruning.SUITE,
    "quantization": quantization.SUITE,
    "chain": chain.SUITE,
    "factorization": factorization.SUITE,
    "early_exit": early_exit.SUITE,
    "cache_lookup": cache_lookup.SUITE,
    "distillation": distillation.SUITE,
}
