"""A virtual environment per peer, made once and kept."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Peer:
    """``newest_python``: the newest 3.x that the package has wheels for; None: any."""

    name: str
    requirement: str
    pip_options: tuple[str, ...] = ()
    newest_python: int | None = None


PEERS: dict[str, Peer] = {
    peer.name: peer
    for peer in (
        Peer("openvino", "openvino"),
        Peer("deepsparse", "deepsparse==1.8.0", ("--only-binary=:all:",), newest_python=11),
    )
}


class Missing(Exception):
    """Why a peer cannot be had here."""


def default_folder() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "sparsecc", "peers")


def environment(peer: Peer, folder: Path) -> str:
    """The Python of an environment that has the peer.

    Raises: Missing.
    """
    place = folder / peer.name
    python, done = place / "bin" / "python", place / "installed.txt"
    if done.exists() and done.read_text() == peer.requirement:
        return str(python)
    shutil.rmtree(place, ignore_errors=True)
    _call([_interpreter(peer), "-m", "venv", str(place)])
    _call([str(python), "-m", "pip", "install", "--quiet", *peer.pip_options, peer.requirement])
    done.write_text(peer.requirement)
    return str(python)


def _interpreter(peer: Peer) -> str:
    newest = peer.newest_python
    if newest is None or sys.version_info[:2] <= (3, newest):
        return sys.executable
    for minor in range(newest, 7, -1):
        if found := shutil.which(f"python3.{minor}"):
            return found
    raise Missing(f"{peer.requirement} needs Python 3.{newest} or older, and there is none on the PATH")


def _call(command: Sequence[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = (done.stderr or done.stdout).strip().splitlines() or ["no output"]
        raise Missing(f"'{' '.join(command[1:])}' failed: {lines[-1]}")
