"""One runtime in a process of its own: loads a model, checks it, and then times one inference whenever it is asked.

    python worker.py '{"runtime": "openvino", "model": "m.onnx", "inputs": "x.npz", "expected": "y.npz", "threads": 1}'

Runs in a peer's environment: imports nothing but numpy and the runtime. Answers with JSON lines on stdout: first
{"version", "error", "memory_bytes"} or {"failed": reason}, then {"seconds"} for every line on stdin, until that ends.
``error`` is the greatest difference from the expected outputs over their greatest magnitude.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable

import numpy as np

WARM_UP_RUNS = 5
LONG_S = 0.1  # of such a run, filling the caches and waking the threads is a few hundredths at most
LEAST_MAGNITUDE = 1e-30  # outputs that are all zero would divide by it


def onnxruntime(job, inputs):
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = job["threads"]
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # within a call its threads spin as they like; after it they would spin on the cores of whoever has the next turn
    options.add_session_config_entry("session.force_spinning_stop", "1")
    if job.get("kernels"):
        options.register_custom_ops_library(job["kernels"])
    session = ort.InferenceSession(job["model"], options, providers=["CPUExecutionProvider"])
    return lambda: session.run(None, inputs), ort.__version__


def openvino(job, inputs):
    import openvino as ov

    config = {
        "INFERENCE_NUM_THREADS": job["threads"],
        "NUM_STREAMS": "1",
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "f32",  # bfloat16 where the processor has it, unless told otherwise
    }
    model = ov.Core().compile_model(job["model"], "CPU", config)
    request = model.create_infer_request()

    def run():
        results = request.infer(inputs, share_inputs=True, share_outputs=True)
        return [results[output] for output in model.outputs]

    return run, ov.__version__


def deepsparse(job, inputs):
    import deepsparse as ds

    arrays = list(inputs.values())
    engine = ds.Engine(job["model"], batch_size=len(arrays[0]), num_cores=job["threads"])
    return lambda: engine.run(arrays), ds.__version__


RUNTIMES = {"onnxruntime": onnxruntime, "sparsecc": onnxruntime, "openvino": openvino, "deepsparse": deepsparse}


def relative_error(outputs, expected):
    if len(outputs) != len(expected):
        raise ValueError(f"{len(outputs)} outputs, expected {len(expected)}")
    return max(
        float(np.abs(np.asarray(y) - e).max() / max(np.abs(e).max(), LEAST_MAGNITUDE))
        for y, e in zip(outputs, expected)  # noqa: B905  DeepSparse's Python may be 3.8
    )


def most_memory_bytes():
    """The most this process ever had in memory; getrusage would count what its parent had when it forked."""
    with open("/proc/self/status") as status:
        (line,) = (line for line in status if line.startswith("VmHWM:"))
    return 1024 * int(line.split()[1])


def main():
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what a runtime prints is no answer
    job = json.loads(sys.argv[1])
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: job["threads"]])

    def answer(**facts):
        answers.write(json.dumps(facts) + "\n")

    try:
        inputs = dict(np.load(job["inputs"]))
        run, version = RUNTIMES[job["runtime"]](job, inputs)
        error = relative_error(run(), list(np.load(job["expected"]).values()))
        for _ in range(WARM_UP_RUNS):
            took_s = timed(run)
    except Exception as failure:  # of any runtime, for any reason: the parent reports it
        answer(failed=f"{type(failure).__name__}: {failure}")
        return
    answer(version=version, error=error, memory_bytes=most_memory_bytes())
    for _ in sys.stdin:
        took_s = turn(run, took_s)
        answer(seconds=took_s)


def turn(run: Callable[[], object], last_s: float) -> float:
    """Seconds of a run; of a short one in warm caches, which others have just used, and with threads awake."""
    if last_s < LONG_S:
        run()
    return timed(run)


def timed(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
