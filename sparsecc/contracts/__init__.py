"""What edges of a network transmit: sensitivity maps, contracts, exact top-k. The specification is in keys and topk.

``transmit`` is the numpy reference; ``sparsecc.contracts.op`` has it as a torch op, ``sparsecc.contracts.portable`` as
an ONNX function. All select the same elements.
"""

from .contract import Contract, check_contract, check_contract_fits, from_json, to_json, transmit, verify_contracts
from .keys import Key, make_keys, offset_table, spread
from .maps import Moments, SensitivityMap, measured_map, uniform_map
from .topk import WHOLE, first_k, first_k_reference, keep_elems, select, tiles

__all__ = [
    "WHOLE",
    "Contract",
    "Key",
    "Moments",
    "SensitivityMap",
    "check_contract",
    "check_contract_fits",
    "first_k",
    "first_k_reference",
    "from_json",
    "keep_elems",
    "make_keys",
    "measured_map",
    "offset_table",
    "select",
    "spread",
    "tiles",
    "to_json",
    "transmit",
    "uniform_map",
    "verify_contracts",
]
