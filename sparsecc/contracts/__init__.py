"""What edges of a network transmit: sensitivity maps, contracts, exact top-k. The specification is in keys and topk.

``negotiate`` makes contracts from a tidied Program and calibration data, ``apply`` puts them into a trainable module.

``transmit`` is the numpy reference; ``sparsecc.contracts.op`` has it as a torch op, ``sparsecc.contracts.portable`` as
an ONNX function. All select the same elements.
"""

from .calibration import Calibration
from .contract import Contract, check_contract, check_contract_fits, from_json, to_json, transmit, verify_contracts
from .contracted import Contracted, apply
from .keys import Key, make_keys, offset_table, spread
from .maps import Moments, SensitivityMap, measured_map, uniform_map
from .negotiation import EdgeLimits, Wishes
from .procedure import Budget, Options, negotiate
from .settled import EdgeRecord, Settled, Settlement, load_contracts
from .settled import save as save_settlement
from .topk import WHOLE, first_k, first_k_reference, keep_elems, select, tiles

__all__ = [
    "WHOLE",
    "Budget",
    "Calibration",
    "Contract",
    "Contracted",
    "EdgeLimits",
    "EdgeRecord",
    "Key",
    "Moments",
    "Options",
    "SensitivityMap",
    "Settled",
    "Settlement",
    "Wishes",
    "apply",
    "check_contract",
    "check_contract_fits",
    "first_k",
    "first_k_reference",
    "from_json",
    "keep_elems",
    "load_contracts",
    "make_keys",
    "measured_map",
    "negotiate",
    "offset_table",
    "save_settlement",
    "select",
    "spread",
    "tiles",
    "to_json",
    "transmit",
    "uniform_map",
    "verify_contracts",
]
