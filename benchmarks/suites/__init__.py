"""The suites, by name."""

from benchmarks.harness.suite import Suites
from benchmarks.suites import cache_lookup, distillation, factorization, pruning

SUITES: Suites = {
    "pruning": pruning.SUITE,
    "factorization": factorization.SUITE,
    "cache_lookup": cache_lookup.SUITE,
    "distillation": distillation.SUITE,
}
