"""What is asked of contracts: the whole sentence for everything that means nothing."""

from pathlib import Path
from typing import Any

import pytest

from sparsecc.contracts import Budget
from sparsecc.contracts.options import ContractOptions
from sparsecc.diagnostics import CompileError


def test_the_budget() -> None:
    assert ContractOptions().budget == Budget("accuracy", 0.01)
    assert ContractOptions(accuracy=0).budget == Budget("accuracy", 0)
    assert ContractOptions(bytes=0.3).budget == Budget("bytes", 0.3)
    assert ContractOptions(cycles=1).budget == Budget("cycles", 1)
    assert ContractOptions(keep=0.5).budget == Budget("keep", 0.5)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"bytes": 0.3, "keep": 0.5},
         "a bytes budget and a share to keep exclude each other\n  help: choose one of them"),
        ({"cycles": 0.3, "accuracy": 0.1},
         "a cycles budget and an accuracy budget exclude each other\n  help: choose one of them"),
        ({"keep": 0}, "the share to keep is 0, expected a share above 0 and at most 1\n  help: 3 % is 0.03"),
        ({"bytes": 30}, "the bytes budget is 30, expected a share above 0 and at most 1\n  help: 3 % is 0.03"),
        ({"accuracy": float("nan")},
         "the accuracy budget is nan, expected a share from 0, less than 1\n  help: 3 % is 0.03"),
        ({"form": "tailor"},
         "there is no sensitivity 'tailor'\n  help: did you mean 'taylor'? known: taylor, product, activation"),
        ({"routing": "magnitud"},
         "there is no routing 'magnitud'\n  help: did you mean 'magnitude'? known: magnitude, sensitivity"),
        ({"settled": Path("m"), "routing": "sensitivity"},
         "contracts that are given are taken as they are, and routing 'sensitivity' is for negotiating new ones\n"
         "  help: leave out one of the two"),
        ({"map_block": 0},
         "the block of a map is 0, expected a number of neurons from 1 to 2147483647\n"
         "  help: leave it out for an entry per channel of images, and per neuron of vectors and tokens"),
        ({"map_block": 1 << 31},
         "the block of a map is 2147483648, expected a number of neurons from 1 to 2147483647\n"
         "  help: leave it out for an entry per channel of images, and per neuron of vectors and tokens"),
        ({"keep": 1e-9},
         "the share to keep is 1e-09, so little that nothing is sent\n"
         "  help: shares are counted in 1/65536: keep at least 1.5e-05"),
        ({"period": -1},
         "the period is -1, expected a number of tiles from 0 to 65535\n"
         "  help: with 0, or without the option, k never moves"),
        ({"fill": "men"}, "there is no fill 'men'\n  help: did you mean 'mean'? known: zero, mean"),
        ({"payload_dtype": "int9"},
         "payloads cannot have dtype 'int9'\n  help: did you mean 'int8'? known: float32, int8"),
        ({"payload_dtype": "int8", "update_maps": True},
         "maps are renewed from float32 that arrives, and a payload dtype of int8 sends none\n"
         "  help: leave out one of the two"),
        ({"cycles": 0.9, "update_maps": True},
         "a cycles budget does not count what updating maps takes\n  help: leave out one of the two"),
        ({"settled": Path("m"), "payload_dtype": "int8"},
         "contracts that are given are taken as they are, and payload dtype 'int8' is for negotiating new ones\n"
         "  help: leave out one of the two"),
        ({"codecs": ("raw", "bitmap")},
         "there is no codec 'bitmap'\n  help: did you mean 'bitmask'? known: raw, bitmask, index"),
        ({"codecs": ("raw", "huffman")},
         "codec 'huffman' is for constants, and contracts are for what layers send each other\n"
         "  help: choose among raw, bitmask, index"),
        ({"codecs": ("run",)},
         "blocks of codec 'run' have a length that depends on the data, and schedules need to know it\n"
         "  help: choose among raw, bitmask, index"),
        ({"settled": Path("m"), "keep": 0.5},
         "contracts that are given are taken as they are, and a share to keep is for negotiating new ones\n"
         "  help: leave out one of the two"),
        ({"settled": Path("m"), "calibration": Path("c.npz")},
         "contracts that are given are taken as they are, and calibration data is for negotiating new ones\n"
         "  help: leave out one of the two"),
        ({"settled": Path("m"), "period": 4},
         "contracts that are given are taken as they are, and a period is for negotiating new ones\n"
         "  help: leave out one of the two"),
        ({"settled": Path("m"), "fill": "mean"},
         "contracts that are given are taken as they are, and fill 'mean' is for negotiating new ones\n"
         "  help: leave out one of the two"),
        ({"settled": Path("m"), "map_block": 8},
         "contracts that are given are taken as they are, and a block of maps is for negotiating new ones\n"
         "  help: leave out one of the two"),
        ({"settled": Path("m"), "form": "product"},
         "contracts that are given are taken as they are, and sensitivity 'product' is for negotiating new ones\n"
         "  help: leave out one of the two"),
        ({"settled": Path("m"), "update_maps": True},
         "contracts that are given are taken as they are, and an update of maps is for negotiating new ones\n"
         "  help: leave out one of the two"),
    ],
)  # fmt: skip
def test_what_means_nothing(asked: dict[str, Any], message: str) -> None:
    with pytest.raises(CompileError) as caught:
        ContractOptions(**asked)
    assert str(caught.value) == f"error[SCC119]: {message}"
