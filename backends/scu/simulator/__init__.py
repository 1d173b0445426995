"""The simulated unit: runs the binary program, never the graph.

    outcome = simulate(container.read(data, target), target, kernels, load={address: image}, read=[(address, 40)])

memory.py, registers.py and operations.py are what descriptors do, engine.py their order, energy.py and report.py what
is counted, trace.py a picture of it. How long a descriptor takes is timing.py's, which schedules share.
"""

from .operations import Counters, KernelFunction
from .report import Outcome
from .run import simulate
from .trace import trace_json

__all__ = ["Counters", "KernelFunction", "Outcome", "simulate", "trace_json"]
