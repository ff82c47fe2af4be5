"""The figures and the table that measured rows become."""

from __future__ import annotations

import json

import pytest

from benchmarks import rows, run, table

FACTS = {
    "processor": "Example CPU",
    "threads": 2,
    "versions": {"jittor": "1.3.11.0", "torch": "2.13.0"},
    "date": "2026-11-20T20:00:00+00:00",
}


def row(work: str, ours, torch, flops: float = 0.0, units: int = 1) -> rows.Row:
    """One turn per inner list."""
    turns = []
    for side, peak, rounds in (("ours", 100.0, ours), ("torch", 200.0, torch)):
        turns += [rows.Turn(side, i, 9.0, times, peak, 50.0) for i, times in enumerate(rounds)]
    return rows.Row(work, "full", "cpu", flops, units, 1e-6, turns, dict(FACTS))


def test_medians_ratios_and_spread_of_rounds():
    found = row("unet", [[1.0, 3.0, 2.0], [4.0, 4.0, 5.0]], [[4.0, 4.0, 8.0], [5.0, 5.0, 5.0]])
    assert found.seconds("ours") == 3.5 and found.seconds("torch") == 5.0
    assert found.ratios() == [2 / 4, 4 / 5]
    assert found.spread("ours") == (5 - 1) / 3.5
    assert found.first_seconds("ours") == 9.0
    figures = found.summary()
    assert figures["ratio"] == {"median": 0.65, "low": 0.5, "high": 0.8}
    assert figures["peak_ratio"] == 0.5


def test_a_round_that_only_one_side_finished_gives_no_ratio():
    assert row("unet", [[1.0], [2.0]], [[4.0]]).ratios() == [0.25]
    assert "ratio" not in row("unet", [[1.0]], []).summary()


def test_times_and_limits_are_per_unit():
    found = row("style", [[12.0]], [[24.0]], flops=600.0, units=6)
    assert found.seconds("ours") == 2.0 and found.first_seconds("ours") == 1.5
    assert found.limit_seconds(rate=50.0) == 2.0


def test_a_row_survives_its_file(tmp_path):
    found = row("unet", [[1.0]], [[2.0]], flops=5.0)
    found.save(tmp_path / "unet.json")
    assert rows.load(tmp_path / "unet.json") == found
    assert json.loads((tmp_path / "unet.json").read_text())["summary"]["ratio"]["median"] == 0.5


def test_the_table_holds_what_was_measured_and_nothing_else(tmp_path):
    row("matrix", [[0.5]], [[1.0]], flops=100.0).save(tmp_path / "matrix.json")
    row("unet", [[3.0], [3.2]], [[6.0], [4.0]], flops=400.0).save(tmp_path / "unet.json")
    made = table.table(table.read(tmp_path))
    lines = made.splitlines()
    assert len(lines) == 2 + 1 + 2  # head, the UNet, an empty line, the note
    cells = [cell.strip() for cell in lines[2].strip("|").split("|")]
    assert cells[:3] == ["UNet forward, batch 1", "3.1", "5"]
    assert cells[3] == "0.65 (0.50 to 0.80)" and cells[4] == "0.75, memory 1.0"
    assert cells[5] == "6 % / 40 %" and cells[6] == "100 / 200 = 0.50"
    assert cells[7] == "2"  # 400 operations at the 200 per second of the faster side
    assert "Example CPU, 2 threads" in lines[-1] and "2026-11-20" in lines[-1]


def test_the_table_is_put_between_its_marks(tmp_path, capsys):
    folder = tmp_path / "full-cpu"
    folder.mkdir()
    row("unet", [[3.0]], [[6.0]]).save(folder / "unet.json")
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- benchmarks:full-cpu -->\nold\n<!-- /benchmarks -->\nafter\n")
    assert table.main([str(folder), "--into", str(page)]) == 0
    assert table.main([str(folder), "--into", str(page)]) == 0
    text = page.read_text()
    assert "old" not in text and text.count("UNet forward") == 1
    assert text.startswith("before\n<!-- benchmarks:full-cpu -->\n| work |")
    assert text.endswith("<!-- /benchmarks -->\nafter\n")
    page.write_text("no marks")
    assert table.main([str(folder), "--into", str(page)]) == 2
    assert "no lines <!-- benchmarks:full-cpu -->" in capsys.readouterr().err
    assert table.main([str(tmp_path / "nowhere")]) == 2


def test_finished_rows_are_left_alone_and_the_others_are_measured(tmp_path, monkeypatch, capsys):
    measured = []

    def measure(name, args, setting):
        measured.append(name)
        return row(name, [[1.0]], [[2.0]])

    monkeypatch.setattr(run, "measure_row", measure)
    words = ["--size", "tiny", "--only", "unet", "--out", str(tmp_path)]
    assert run.main(words) == 0
    assert measured == ["matrix", "unet", "unet_batch2"]
    (tmp_path / "tiny-cpu" / "unet.json").unlink()
    assert run.main(words) == 0
    assert measured[3:] == ["unet"]
    assert run.main([*words, "--again"]) == 0
    assert measured[4:] == ["matrix", "unet", "unet_batch2"]
    capsys.readouterr()
    assert run.main(["--size", "full", "--out", str(tmp_path)]) == 2
    assert "--model FOLDER" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        run.main(["--only", "unet,vea"])
    assert "'unet,vea': allowed are matrix, unet" in capsys.readouterr().err
