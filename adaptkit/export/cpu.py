"""What the CPU of this machine does with 8-bit products."""

from __future__ import annotations

import platform
from pathlib import Path

import onnx

_CPUINFO = Path("/proc/cpuinfo")
_VNNI = {"avx512_vnni", "avx_vnni", "avx512vnni"}


def has_vnni(cpuinfo: Path = _CPUINFO) -> bool | None:
    """Say whether the CPU adds 8-bit products in 32 bits (VNNI, or any ARM CPU); None where that cannot be known.

    x86 CPUs without it add two products of an unsigned and a signed byte in 16 bits, which can saturate.
    """
    if platform.machine().lower() in ("aarch64", "arm64"):
        return True
    if not cpuinfo.is_file():
        return None
    flags = next((line for line in cpuinfo.read_text().splitlines() if line.startswith("flags")), None)
    return None if flags is None else bool(_VNNI & set(flags.partition(":")[2].split()))


def saturation_notes(proto: onnx.ModelProto, cpuinfo: Path = _CPUINFO) -> list[str]:
    """Say which layers of a quantized file can give other results on an x86 CPU without VNNI, and what this CPU is."""
    from adaptkit.quantization.inspect import saturation_risk

    risks = saturation_risk(proto)
    here = {True: "with", False: "without", None: "perhaps without"}[has_vnni(cpuinfo)]
    if not risks:
        return [f"8-bit products cannot saturate on any CPU (verified on one {here} VNNI)"]
    few = "; ".join(risks[:3]) + (f"; and {len(risks) - 3} more" if len(risks) > 3 else "")
    return [
        f"8-bit products can saturate on x86 CPUs without VNNI (verified on one {here} VNNI) in {len(risks)} layers: "
        f"{few}. `weight_bits: auto` or `7` avoids it"
    ]
