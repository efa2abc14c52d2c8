"""`prunery doctor`: what this machine and this installation can do, and what is missing for what."""

import importlib.util
import os
import shutil
from pathlib import Path
from typing import Any

from ..runs import conditions
from ..spec import install
from .shown import data_sets

EXTRAS = {
    "onnxruntime": ("onnx", "export to ONNX and compare with ONNX Runtime"),
    "openvino": ("openvino", "export to OpenVINO and compare with it"),
    "optuna": ("search", "search with Optuna"),
    "tensorboard": ("tensorboard", "follow training in TensorBoard"),
    "datasets": ("hf", "read data sets from the Hugging Face hub"),
    "ray": ("ray", "sweep on several machines"),
    "pyarrow": ("parquet", "write Parquet files"),
    "s3fs": ("s3", "keep sweeps in S3"),
    "gcsfs": ("gs", "keep sweeps in Google Cloud Storage"),
    "adlfs": ("abfs", "keep sweeps in Azure"),
    "mlflow": ("mlflow", "write runs to MLflow"),
}
WITH = {
    "onnxruntime": ("onnx", "onnxscript", "onnxruntime"), "openvino": ("openvino", "nncf"),
    "mlflow": ("mlflow-skinny", "sqlalchemy", "alembic"),
}  # fmt: skip
"""the packages that bring a module, where they are not its name"""


def examine(runs: Path, data_dir: Path) -> dict[str, Any]:
    """Everything that `told` puts into words."""
    return {
        **conditions(),
        "devices": devices(),
        "native": native(),
        "extras": {n: importlib.util.find_spec(n) is not None for n in EXTRAS},
        "data": data_sets(data_dir),
        "runs": folder(runs),
    }


def devices() -> dict[str, str]:
    """Devices that PyTorch can compute on."""
    import torch

    from ..train.half import has_bfloat16

    half = "has bfloat16" if has_bfloat16() else "bfloat16 computed in float32"
    cards = {f"cuda:{i}": torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())}
    return {"cpu": f"{torch.get_num_threads()} threads, {half}", **cards}


def native() -> dict[str, Any]:
    """The compiled room: instruction sets, and the peak that each reaches here."""
    from .. import native

    try:
        chosen, there = native.instruction_set(), native.available()
    except (native.NativeMissing, ValueError) as error:
        return {"error": str(error)}
    peaks = {isa: round(native.peak_gflops(isa), 1) for isa in there}
    return {"chosen": chosen, "peak_gflops_per_core": peaks, "features": sorted(native.features())}


def folder(path: Path) -> dict[str, Any]:
    """Whether steps can be kept there, and how much room there is."""
    there = next(p for p in (path.resolve(), *path.resolve().parents) if p.exists())
    writable, free = there.is_dir() and os.access(there, os.W_OK), shutil.disk_usage(there).free
    return {"folder": str(path), "writable": writable, "free_gb": round(free / 1e9, 1)}


def told(found: dict[str, Any]) -> list[str]:
    """The findings, a line each."""
    versions = ", ".join(f"{k} {v}" for k, v in found["versions"].items() if v)
    machine = found["machine"]
    lines = [f"versions      {versions}"]
    lines += [f"machine       {machine['cpu']}, {machine['cores']} cores, {machine['system']}"]
    lines += [f"device        {k}: {v}" for k, v in found["devices"].items()]
    lines += _native_lines(found["native"])
    lines += [f"data          {k}: {v}" for k, v in found["data"].items()]
    lines += [f"runs          {found['runs']['folder']}: {_runs_words(found['runs'])}"]
    return lines + [_extra_line(name, there) for name, there in found["extras"].items()]


def _native_lines(found: dict[str, Any]) -> list[str]:
    if "error" in found:
        return [f"kernels       missing: {found['error']}"]
    peaks = ", ".join(f"{k} {v:g} GFLOP/s" for k, v in found["peak_gflops_per_core"].items())
    used = f"kernels       {found['chosen']} is used; one core reaches {peaks}"
    return [used, f"processor     {' '.join(found['features'])}"]


def _runs_words(found: dict[str, Any]) -> str:
    words = "writable" if found["writable"] else "NOT writable: choose another with --runs"
    return f"{words}, {found['free_gb']:g} GB free"


def _extra_line(name: str, there: bool) -> str:
    extra, purpose = EXTRAS[name]
    return f"extra         {name}: " + (
        "there" if there else f"missing; to {purpose}, {install(extra, *WITH.get(name, (name,)))}"
    )
