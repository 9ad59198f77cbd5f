"""`snl info` of real exports: the same facts as of their bundle."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from snl.cli.main import main


@pytest.mark.parametrize(("suffix", "kind"), [(".onnx", "onnx"), (".xml", "openvino")])
def test_an_export_is_described_as_its_bundle(
    calibrated: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], suffix: str, kind: str
) -> None:
    pytest.importorskip("onnxscript")
    pytest.importorskip("openvino")
    file = tmp_path / f"parts{suffix}"
    assert main(["export", str(calibrated), "-o", str(file), "--quiet"]) == 0
    capsys.readouterr()
    results = []
    for path in (calibrated, file):
        assert main(["info", str(path), "--json", "-"]) == 0
        results.append(json.loads(capsys.readouterr().out))
    assert results[1]["file"]["kind"] == kind
    assert results[1]["file"]["bytes"] == sum(p.stat().st_size for p in tmp_path.iterdir())
    for result in results:
        del result["file"]
    assert results[0] == results[1]
