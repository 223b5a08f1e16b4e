"""What NVIDIA's driver says of this machine's GPUs (NVML)."""

import contextlib

import pynvml  # type: ignore[import-untyped]  # it comes without types


def gpu_memory() -> tuple[int, int] | None:
    """Used and total bytes of all GPUs together; None where there is none, or no driver that tells. May block."""
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return None
    try:
        gpus = [pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(pynvml.nvmlDeviceGetCount())]
        memory = [pynvml.nvmlDeviceGetMemoryInfo(gpu) for gpu in gpus]
    except pynvml.NVMLError:
        return None
    finally:
        with contextlib.suppress(pynvml.NVMLError):
            pynvml.nvmlShutdown()
    return (sum(one.used for one in memory), sum(one.total for one in memory)) if memory else None
