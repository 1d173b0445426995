"""What people read: tables over the facts of an artifact and over measurements. JSON has the same, unrounded."""

from .artifact import inspection, pruning_warning, summary, summary_facts
from .measured import bench_table, outputs_facts, outputs_table, verify_facts, verify_table
from .profile import layer_times, profile_tables

__all__ = [
    "bench_table",
    "inspection",
    "layer_times",
    "outputs_facts",
    "outputs_table",
    "profile_tables",
    "pruning_warning",
    "summary",
    "summary_facts",
    "verify_facts",
    "verify_table",
]
