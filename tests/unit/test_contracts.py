"""The generated code is the contracts': what `make proto` would write now is what is committed."""

import subprocess
import sys
from pathlib import Path

import pytest

_PROTO = Path(__file__).parents[2] / "proto"
_SOURCES = sorted((_PROTO / "fleet" / "v1").glob("*.proto"))


@pytest.fixture(scope="module")
def generated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with everything `make proto` generates."""
    folder = tmp_path_factory.mktemp("proto")
    binaries = Path(sys.executable).parent
    subprocess.run(
        [
            *(sys.executable, "-m", "grpc_tools.protoc", f"-I{_PROTO}"),
            f"--plugin={binaries / 'protoc-gen-mypy'}",
            f"--plugin={binaries / 'protoc-gen-mypy_grpc'}",
            *(f"--python_out={folder}", f"--grpc_python_out={folder}"),
            *(f"--mypy_out=quiet:{folder}", f"--mypy_grpc_out=quiet:{folder}"),
            *map(str, _SOURCES),
        ],
        check=True,
        timeout=100,
    )
    return folder


def test_there_is_generated_code_for_exactly_the_contracts(generated: Path) -> None:
    committed = {path.name for path in (_PROTO / "fleet" / "v1").glob("*_pb2*.py*")}

    assert committed == {path.name for path in (generated / "fleet" / "v1").iterdir()}


@pytest.mark.parametrize("source", _SOURCES, ids=lambda path: path.stem)
@pytest.mark.parametrize("suffix", ["_pb2.py", "_pb2.pyi", "_pb2_grpc.py", "_pb2_grpc.pyi"])
def test_the_committed_code_is_what_the_contract_generates(generated: Path, source: Path, suffix: str) -> None:
    name = source.stem + suffix

    assert (source.parent / name).read_text() == (generated / "fleet" / "v1" / name).read_text(), "run `make proto`"
