"""Write the conformance vectors: `python make_vectors.py FOLDER`. The same bytes on every machine.

README.md beside this file says what is in them. Needs Python 3.10 and nothing else, sparsecc least of all.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import vectors_data
import vectors_unit
from files import assembly, container
from programs import SCU_V1, Vector
from reference import Unit
from refused import assembly_refused, files_refused, runs_refused

Target = Mapping[str, Any]


def address(at: int, target: Target) -> str:
    (name,) = (name for name, memory in target["memory"].items() if memory["region"] == at >> 56)
    return f"{name}+{at & ((1 << 56) - 1):#x}"


def write_vector(vector: Vector, folder: Path) -> None:
    folder.mkdir(parents=True)
    target = dict(vector.target)
    unit = Unit(vector.program, target, vector.load)
    unit.run()
    (folder / "program.scu").write_bytes(container(vector.program, target))
    (folder / "program.s").write_bytes(assembly(vector.program, target).encode())
    if target != SCU_V1:
        write_json(folder / "target.json", target)
    wanted = [(at, unit.read(at, size)) for at, size in vector.expect]
    tree = {
        "title": vector.title,
        "target": "scu-v1" if target == SCU_V1 else "target.json",
        "load": image(vector.load.items(), target, folder / "load.bin"),
        "expect": image(wanted, target, folder / "expect.bin"),
        "counters": unit.counters,
        "semaphores": {str(i): count for i, count in enumerate(unit.semaphores) if count},
        "descriptors": unit.run_descriptors,
    }
    write_json(folder / "vector.json", tree)


def image(pieces: Iterable[tuple[int, bytes]], target: Target, path: Path) -> list[tuple[str, int]]:
    """The listing [address, bytes] of pieces of memory that lie one after the other in a file."""
    listing, data = list[tuple[str, int]](), b""
    for at, piece in pieces:
        listing.append((address(at, target), len(piece)))
        data += piece
    path.write_bytes(data)
    return listing


def write_refused(folder: Path) -> None:
    folder.mkdir(parents=True)
    index = list[dict[str, str]]()
    for by, cases in (
        ("reader or verifier", files_refused()),
        ("run", runs_refused()),
        ("assembler", assembly_refused()),
    ):
        for case in cases:
            file = case.name + (".s" if by == "assembler" else ".scu")
            (folder / file).write_bytes(case.data)
            index.append({"file": file, "by": case.by or by, "code": case.code, "why": case.why})
    write_json(folder / "refused.json", index)


def write_json(path: Path, tree: Any) -> None:
    """Readable: a line per item of a list, or per field of an object."""
    if isinstance(tree, list):
        text = "[\n" + ",\n".join(json.dumps(item) for item in tree) + "\n]\n"
    else:
        text = "{\n" + ",\n".join(f"{json.dumps(name)}: {json.dumps(tree[name])}" for name in tree) + "\n}\n"
    path.write_bytes(text.encode())


def main(folder: Path) -> None:
    for vector in (*vectors_data.vectors(), *vectors_unit.vectors()):
        write_vector(vector, folder / "run" / vector.name)
    write_refused(folder / "refuse")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
