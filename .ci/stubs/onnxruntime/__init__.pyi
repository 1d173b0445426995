"""What sparsecc uses of onnxruntime, which brings no types of its own."""

from collections.abc import Mapping, Sequence

import numpy as np

__version__: str

class SessionOptions:
    intra_op_num_threads: int
    inter_op_num_threads: int
    log_severity_level: int
    optimized_model_filepath: str
    enable_profiling: bool
    profile_file_prefix: str
    def add_session_config_entry(self, key: str, value: str, /) -> None: ...
    def register_custom_ops_library(self, path: str, /) -> None: ...

class NodeArg:
    name: str

Array = np.ndarray[tuple[int, ...], np.dtype[np.generic]]

class InferenceSession:
    def __init__(
        self, path_or_bytes: str | bytes, sess_options: SessionOptions = ..., providers: Sequence[str] = ...
    ) -> None: ...
    def get_inputs(self) -> list[NodeArg]: ...
    def get_outputs(self) -> list[NodeArg]: ...
    def end_profiling(self) -> str: ...
    def run(self, output_names: Sequence[str] | None, input_feed: Mapping[str, Array]) -> list[Array]: ...
