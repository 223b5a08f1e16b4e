"""A GPU's memory. A driver is played by a library that is built here and found where the real one would be."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

GIB = 2**30
# NVML's interface (nvml.h), with GPUs that the environment describes: "used/total" in GiB each, "fail" for one that is
# lost. It stops the program if it is asked after its end or left open.
DRIVER = r"""
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
typedef struct { unsigned long long total, free, used; } memory_t;
static int open_count = 0;
static const char *gpus[8];
static unsigned count = 0;
int nvmlInitWithFlags(unsigned flags) {
    const char *said = getenv("FAKE_GPUS");
    if (!said) return 9;  /* NVML_ERROR_DRIVER_NOT_LOADED */
    count = 0;
    for (char *one = strtok(strdup(said), ","); one; one = strtok(NULL, ",")) gpus[count++] = one;
    open_count++;
    return 0;
}
int nvmlShutdown(void) { if (--open_count < 0) abort(); return 0; }
int nvmlDeviceGetCount_v2(unsigned *found) { if (!open_count) abort(); *found = count; return 0; }
int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **device) { *device = (void *)gpus[index]; return 0; }
int nvmlDeviceGetMemoryInfo(void *device, memory_t *memory) {
    unsigned long long used, total;
    if (!open_count) abort();
    if (sscanf(device, "%llu/%llu", &used, &total) != 2) return 15;  /* NVML_ERROR_GPU_IS_LOST */
    memory->used = used << 30;
    memory->total = total << 30;
    memory->free = memory->total - memory->used;
    return 0;
}
const char *nvmlErrorString(int result) { return "an error"; }
__attribute__((destructor)) static void at_end(void) { if (open_count) abort(); }
"""
READ = "import json; from lexora.adapters.gpu import gpu_memory; print(json.dumps([gpu_memory(), gpu_memory()]))"

Read = Callable[[str | None], list[list[int] | None]]


@pytest.fixture(scope="module")
def read(tmp_path_factory: pytest.TempPathFactory) -> Read:
    """Two readings, one after the other, in a process of its own with such GPUs."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("needs a C compiler")
    folder = tmp_path_factory.mktemp("driver")
    (folder / "nvml.c").write_text(DRIVER)
    library = folder / "libnvidia-ml.so.1"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", str(library), str(folder / "nvml.c")], check=True)

    def run(gpus: str | None) -> list[list[int] | None]:
        env = {**os.environ, "LD_LIBRARY_PATH": str(folder), **({} if gpus is None else {"FAKE_GPUS": gpus})}
        done = subprocess.run([sys.executable, "-c", READ], env=env, capture_output=True, text=True, check=True)
        readings: list[list[int] | None] = json.loads(done.stdout)
        return readings

    return run


@pytest.mark.parametrize(
    ("gpus", "memory"),
    [
        ("24/32", [24 * GIB, 32 * GIB]),
        ("24/32,1/80", [25 * GIB, 112 * GIB]),
        ("", None),  # a driver, and no GPU
        (None, None),  # a library without the driver
        ("24/32,lost", None),  # half a figure would be a wrong one
    ],
)
def test_the_memory_of_all_gpus_is_as_the_driver_says_or_not_known(
    read: Read, gpus: str | None, memory: list[int] | None
) -> None:
    assert read(gpus) == [memory, memory]


def test_a_machine_without_the_drivers_library_has_no_figures(tmp_path: Path) -> None:
    """Should this machine have one, a file that is no library stands in its way."""
    (tmp_path / "libnvidia-ml.so.1").write_text("not a library")
    env = {**os.environ, "LD_LIBRARY_PATH": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", READ], env=env, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == [None, None]
