"""The suites, by name."""

from benchmarks.harness.suite import Suites
from benchmarks.suites import cache_lookup

SUITES: Suites = {
    "cache_lookup": cache_lookup.SUITE,
}
