"""``sparsecc demo``: a trained, pruned LeNet-5 from PyTorch to onnxruntime, and what came of it."""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Group, RenderableType
from rich.text import Text

from sparsecc import api, report
from sparsecc.backends.onnxruntime.bench import bench
from sparsecc.backends.onnxruntime.session import open_session
from sparsecc.models import lenet5
from sparsecc.progress import Progress
from sparsecc.report.text import FACTS, count, data_size, duration, table

NEXT = """\
The artifact is {path}. Next:

  sparsecc inspect {path}
  sparsecc bench {path}
  sparsecc compile model.pt    # yours, as sparsecc.save(module, inputs, "model.pt") writes it

Without sparsecc, wherever onnxruntime is:

  import onnxruntime as ort
"""
WITH_KERNELS = """\
  options = ort.SessionOptions()
  options.register_custom_ops_library("{path}/kernels.so")
  session = ort.InferenceSession("{path}/model.onnx", options)"""
WITHOUT_KERNELS = """\
  session = ort.InferenceSession("{path}/model.onnx")"""


def run(path: Path, progress: Progress | None = None) -> dict[str, Any]:
    """Compile the bundled network to ``path``, classify the bundled digits in onnxruntime, and compare with torch.

    Raises: CompileError SCC063 if ``path`` is taken; SCC050 without a C compiler.
    """
    start = time.perf_counter()
    model = lenet5.load_pruned()
    compiled = api.compile(model, lenet5.example_inputs(), dynamic={"batch": 0}, progress=progress)
    artifact = compiled.save(path)
    digits, labels = lenet5.test_digits()
    with torch.inference_mode():
        expected = model(digits).argmax(1).numpy()
    session = open_session(artifact)
    (name,) = (value.name for value in session.inputs)
    (logits,) = session.run({name: digits.numpy()}).values()
    classes = np.asarray(logits).argmax(1)
    return {
        **report.summary_facts(artifact),
        "model": "LeNet-5, trained on MNIST and pruned to 90 % zeros",
        "digits": len(labels),
        "correct": int((classes == labels.numpy()).sum()),
        "correct_torch": int((expected == labels.numpy()).sum()),
        "same_class_as_torch": int((classes == expected).sum()),
        "bench": asdict(bench(artifact)),
        "seconds": time.perf_counter() - start,
    }


def outcome(facts: dict[str, Any]) -> RenderableType:
    """What ``run`` found, and where to go next."""
    path, digits, bench_facts = facts["artifact"], facts["digits"], facts["bench"]
    dense, compiled = (duration(bench_facts[kind]["median_ms"] * 1e-3) for kind in ("dense", "compiled"))
    layers, weights = facts["layers"], facts["weights_bytes"]
    rows = [
        ("accuracy", f"{facts['correct']} of {digits} test digits right; torch: {facts['correct_torch']}"),
        ("agreement", f"{facts['same_class_as_torch']} of {digits} digits get the same class as in torch"),
        (
            "weights",
            f"{data_size(weights['dense'])} dense -> {data_size(weights['stored'])}, {facts['zeros']:.1%} zeros",
        ),
        ("layers", f"{layers['sparse']} sparse, {layers['dense']} dense, {count(facts['regions'], 'region')}"),
        ("time per digit", f"{dense} dense -> {compiled}, {bench_facts['ratio_median']:.2f}x (1 thread)"),
    ]
    return Group(
        table(f"{facts['model']}, in onnxruntime", FACTS, rows),
        Text(f"Compiled, run and measured in {duration(facts['seconds'])}.\n"),
        Text((NEXT + (WITH_KERNELS if facts["regions"] else WITHOUT_KERNELS)).format(path=path)),
    )
