"""File sinks: lines that a crash has cut, hostile texts, and disks that fail."""

from __future__ import annotations

import csv
import json
import os
import resource
import signal
from pathlib import Path

import pytest

from snl.service.events import inspection_event
from snl.service.policy import Policy
from snl.service.sinks.base import DeliveryError, Event, Sink
from snl.service.sinks.kinds import plan
from snl.service.tables import InspectionRow
from tests.service.receivers import Line, inspection_row, until


def file_sink(kind: str, path: Path, policy: Policy | None = None) -> Sink:
    return plan("file", {"kind": kind, "path": str(path)}, policy).make()


def events_of(*rows: InspectionRow) -> list[Event]:
    return [Event(row.id, inspection_event(row)) for row in rows]


@pytest.mark.parametrize("kind", ["jsonl", "csv"])
def test_a_line_that_was_cut_is_written_again(kind: str, tmp_path: Path) -> None:
    path = tmp_path / f"out.{kind}"
    sink = file_sink(kind, path)
    events = events_of(*(inspection_row(number, name="ü\nx") for number in range(5)))
    sink.deliver(events[:3])
    whole = path.read_bytes()
    sink.deliver(events[3:])
    complete = path.read_bytes()
    assert complete.startswith(whole) and complete.count(b"\n") == 5 + (kind == "csv")
    first_end = complete.index(b"\n", len(whole)) + 1
    for cut in {*range(len(whole), len(complete), 13), first_end - 1, first_end, first_end + 1}:
        path.write_bytes(complete[:cut])
        sink.deliver(events[3:])
        is_there = cut >= first_end  # the first line was complete: it is there twice
        begin = complete[:first_end] if is_there else whole
        assert path.read_bytes() == begin + complete[len(whole) :]
    for cut in range(0, 40, 3):  # the heading, or the very first line
        path.write_bytes(complete[:cut])
        sink.deliver(events)
        assert path.read_bytes() == complete


def test_a_last_line_of_somebody_else_stays(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    path.write_text('{"mine": 1}', encoding="utf-8")
    (event,) = events_of(inspection_row())
    file_sink("jsonl", path).deliver([event])
    assert path.read_text(encoding="utf-8") == f'{{"mine": 1}}\n{event.body}\n'
    table = tmp_path / "out.csv"
    table.write_text("id,name\n1,2\n", encoding="utf-8")
    with pytest.raises(DeliveryError, match="other columns"):
        file_sink("csv", table).deliver([event])
    assert table.read_text(encoding="utf-8") == "id,name\n1,2\n"


def test_cells_are_no_formulas(tmp_path: Path) -> None:
    names = [*("=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", " =1", "\u00a0=1"), 'a,"b";=c\nd']
    path = tmp_path / "out.csv"
    rows = [inspection_row(name=name, part="-5", score=-0.5, p_value=None) for name in names]
    file_sink("csv", path).deliver(events_of(*rows))
    with path.open(newline="", encoding="utf-8") as file:
        found = list(csv.DictReader(file))
    assert [one["id"] for one in found] == [row.id for row in rows]
    assert {one["score"] for one in found} == {"-0.5"} and {one["p_value"] for one in found} == {""}
    assert {one["part"] for one in found} == {"'-5"}
    for one in found[:-1]:
        assert one["name"][0] == "'"
    assert found[-1]["name"] == 'a,"b";=c d'


def test_files_that_cannot_be_written(tmp_path: Path) -> None:
    (event,) = events_of(inspection_row())
    os.mkfifo(tmp_path / "pipe.jsonl")
    (tmp_path / "folder.jsonl").mkdir()
    for name in ("pipe.jsonl", "folder.jsonl", "none/x.jsonl"):
        sink = file_sink("jsonl", tmp_path / name)
        for attempt in (lambda: sink.deliver([event]), lambda: sink.test(event)):  # noqa: B023
            with pytest.raises(DeliveryError) as failed:
                attempt()
            assert not failed.value.permanent and name in str(failed.value)
    with Line(tmp_path) as line:
        sinks = line.start({"file": {"kind": "jsonl", "path": str(tmp_path / "later" / "x.jsonl")}})
        line.inspect(2)
        until(lambda: sinks.one("file").state == "retrying", "a failed try")
        (tmp_path / "later").mkdir()
        until(lambda: line.outbox() == 0, "delivery")
        lines = (tmp_path / "later" / "x.jsonl").read_text(encoding="utf-8").splitlines()
        assert [json.loads(one)["inspection"]["part"] for one in lines] == ["0", "1"]


def test_a_full_disk_leaves_whole_lines(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    events = events_of(*(inspection_row(number) for number in range(20)))
    sink = file_sink("jsonl", path)
    sink.deliver(events[:5])
    before = path.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 1000, limits[1]))
    try:
        with pytest.raises(DeliveryError, match="cannot be written"):
            sink.deliver(events[5:])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert path.read_bytes() == before
    sink.deliver(events[5:])
    assert path.read_text(encoding="utf-8").splitlines() == [event.body for event in events]


def test_a_folder_that_becomes_a_link_leads_nowhere(tmp_path: Path) -> None:
    folder, other = tmp_path / "allowed" / "deep", tmp_path / "other"
    folder.mkdir(parents=True)
    other.mkdir()
    sink = file_sink("jsonl", folder / "x.jsonl", Policy(folders=(tmp_path / "allowed",)))
    folder.rmdir()
    folder.symlink_to(other)
    with pytest.raises(DeliveryError, match="in no allowed folder"):
        sink.deliver(events_of(inspection_row()))
    assert not list(other.iterdir())
