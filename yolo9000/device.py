"""Which device computes, and in which precision. No network."""

import torch


def find_device(name: str | torch.device, error: type[Exception]) -> torch.device:
    """The device of that name, "auto" a GPU where there is one. Raises `error` where it cannot be used."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as reason:
        raise error(f"device {str(name)!r} cannot be used ({str(reason).splitlines()[0]})") from reason
    return device


def has_bfloat16(device: torch.device) -> bool:
    """Whether the processor computes in bfloat16 itself; elsewhere it is emulated and slower than float32."""
    if device.type == "cpu":
        return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return device.type == "cuda" and torch.cuda.is_bf16_supported()


def wants_bfloat16(precision: str, device: torch.device) -> bool:
    """Whether "bfloat16", "float32" or "auto", what the processor is fast at, means bfloat16 here."""
    return has_bfloat16(device) if precision == "auto" else precision == "bfloat16"
