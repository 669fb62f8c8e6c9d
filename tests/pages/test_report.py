"""The page of a run: what it says is what the run's files say, however many starts it had and however they ended."""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
from pathlib import Path

import pytest
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By
from torch.utils.tensorboard import SummaryWriter

from tests.conftest import smoke_config
from theworld.checkpoint.on_disk import list_checkpoints
from theworld.commands.report import main
from theworld.commands.train import leave_report
from theworld.errors import UserError
from theworld.pages.drawing import line_figure
from theworld.pages.run_curves import read_curves
from theworld.pages.run_page import run_page
from theworld.uploaded import FILE, WORK, note_uploaded

EVIL = "<script>document.title = 'owned'</script>"


@pytest.fixture(scope="module")
def run(raw_sample: Path, mds_sample: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two starts; the first is made one that was killed."""
    from theworld.train.run import train

    folder = tmp_path_factory.mktemp("reported")
    settings = (
        f"save_folder={folder / 'run'}",
        f"train_loader.dataset.local={folder / 'cache'}",
        *("global_train_batch_size=8", "train_loader.num_workers=0", "save_interval=2ba", "log_interval=1ba"),
    )
    for end in ("2ba", "4ba"):
        assert train(smoke_config(raw_sample, mds_sample, *settings, f"max_duration={end}")) == 0
    ends = folder / "run" / "ends.jsonl"
    ends.write_text(ends.read_text().splitlines(keepends=True)[1])
    return folder / "run"


def write_metrics(folder: Path, start: int, values: dict[int, float], name: str = "loss/train/total") -> None:
    """An event file that a start began; the older the start, the later it was changed last."""
    with SummaryWriter(str(folder / f"start-{start}")) as writer:
        for step, value in values.items():
            writer.add_scalar(name, value, step)
    (path,) = (folder / f"start-{start}").iterdir()
    path = path.rename(path.with_name(f"events.out.tfevents.{start}.host.1.0"))
    os.utime(path, (9000 - start, 9000 - start))


def test_what_a_later_start_did_again_stands(tmp_path: Path) -> None:
    """The first start goes to batch 9, the second on from 5 to 7: of the first nothing from 5 on is left."""
    write_metrics(tmp_path, 1, dict.fromkeys(range(10), 1.0))
    write_metrics(tmp_path, 2, dict.fromkeys(range(5, 8), 2.0))
    points = read_curves(tmp_path).points("loss/train/total")
    assert points == [(step, 1.0 if step < 5 else 2.0) for step in range(8)]


@pytest.mark.parametrize("damage", [b"", b"half a rec", bytes(range(256)) * 4])
def test_an_event_file_that_a_kill_has_cut(tmp_path: Path, damage: bytes) -> None:
    """What is whole counts; the file of another start is read all the same."""
    write_metrics(tmp_path, 1, dict.fromkeys(range(4), 1.0))
    write_metrics(tmp_path, 2, dict.fromkeys(range(4, 6), 2.0))
    (first,) = (tmp_path / "start-1").iterdir()
    with first.open("ab") as events:
        events.write(damage)
    (tmp_path / "start-1" / "events.out.tfevents.0.empty").write_bytes(damage)
    assert len(read_curves(tmp_path).points("loss/train/total")) == 6


def test_the_page_says_what_the_files_say(run: Path, tmp_path: Path) -> None:
    page = run_page(run)
    assert "<title>run: finished</title>" in page
    for verdict in ("at most once", "complete, data set as it is today", "exactly once"):
        assert re.search(rf"<th>{verdict}</th><td class=\"(good|bad|warn)\">", page)
    assert '<th>at most once</th><td class="good">yes</td>' in page
    assert page.count("killed, or crashed") == 1
    assert page.count("exit code 0") == 1
    for title in ("Loss", "Learning rate", "Gradient norm before clipping", "Padding"):
        assert f'aria-label="{title}"' in page
    saved = list_checkpoints(run)
    assert len(saved) == 2
    for checkpoint in saved:
        assert f"<td>{checkpoint.path.name}</td>" in page
    assert "global_train_batch_size: 8" in page
    assert main([str(run), "--no-audit", "--html", str(tmp_path / "page.html")]) == 0
    assert "Exactly once?" not in (tmp_path / "page.html").read_text(encoding="utf-8")


def test_a_ledger_that_lost_lines_is_seen_on_the_page(run: Path, tmp_path: Path) -> None:
    copied = tmp_path / "run"
    shutil.copytree(run, copied)
    ledger = copied / "ledger" / "rank0.jsonl"
    ledger.write_text("".join(ledger.read_text().splitlines(keepends=True)[1:]))
    page = run_page(copied)
    assert '<th>exactly once</th><td class="bad">no</td>' in page
    assert "wrong: " in page


def test_secrets_and_markup_from_the_files(run: Path, tmp_path: Path) -> None:
    copied = tmp_path / "run"
    shutil.copytree(run, copied)
    with (copied / "ends.jsonl").open("a") as ends:
        ends.write(
            json.dumps({"launch": 1, "time": "2026-01-01T00:00:00+00:00", "exit_code": 1, "reason": EVIL}) + "\n"
        )
    with (copied / "config.yaml").open("a") as config:
        config.write("extra: https://user:hunter2@host/path\n")
    page = run_page(copied, audited=False)
    assert EVIL not in page
    assert "&lt;script&gt;" in page
    assert "hunter2" not in page


def test_evaluations_of_the_run(run: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    copied = tmp_path / "run"
    shutil.copytree(run, copied)
    (copied / "evaluations").mkdir()
    scores = {"overall": 61.5, "qualitative": 70.0, "quantitative": 50.0}
    (copied / "evaluations" / "one.json").write_text(json.dumps(scores))
    (copied / "evaluations" / "two.json").write_text("[]")
    assert "<td>one.json</td><td>61.5</td><td>70.0</td><td>50.0</td>" in run_page(copied, audited=False)
    assert "two.json: no table of scores" in caplog.text


def test_where_the_checkpoints_are_on_the_hub(run: Path, tmp_path: Path) -> None:
    copied = tmp_path / "run"
    shutil.copytree(run, copied)
    assert "huggingface.co" not in run_page(copied, audited=False)
    (copied / WORK).mkdir()
    commits = {batch: f"{batch}" * 40 for batch in (1, 2)}
    for batch, commit in commits.items():
        note_uploaded(copied, "someone/spatial", batch, commit)
    page = run_page(copied, audited=False)
    rows = re.findall(r"<tr><td>(.*?)</td><td class=\"number\">(\d+)</td>.*?</tr>", page, re.S)
    assert [batch for _, batch in rows][-3:] == ["4", "2", "1"]
    assert rows[-1][0] == "not here any more"
    for commit in commits.values():
        address = f"https://huggingface.co/someone/spatial/tree/{commit}"
        assert f'<a href="{address}" rel="noreferrer">someone/spatial@{commit[:8]}</a>' in page
    assert page.count("huggingface.co") == 2
    # Fetched from there by a later start: which commit it was is not known.
    note_uploaded(copied, "someone/spatial", 4)
    assert '<a href="https://huggingface.co/someone/spatial/tree/main" rel="noreferrer">' in run_page(copied, False)
    for commit, repo in (("../../evil", "someone/spatial"), ("a" * 40, "javascript:alert(1)//x")):
        (copied / WORK / FILE).write_text(json.dumps({"repo": repo, "batch": 4, "commits": {"4": commit}}))
        assert commit not in run_page(copied, audited=False)
        assert "javascript" not in run_page(copied, audited=False)


def test_no_run(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such folder"):
        main([str(tmp_path / "none")])


def test_a_page_that_cannot_be_written_fails_no_run(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "launches.jsonl").write_text("damaged\nlines\n")
    with caplog.at_level(logging.WARNING):
        leave_report(tmp_path)
    assert "no report: " in caplog.text
    assert "Traceback" not in caplog.text
    assert not (tmp_path / "report.html").exists()


def test_a_fault_of_the_page_fails_no_run_either(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("theworld.pages.run_page.run_page", lambda folder: 1 // 0)
    with caplog.at_level(logging.WARNING):
        leave_report(tmp_path)
    assert "no report: " in caplog.text
    assert "Traceback" in caplog.text


def test_a_value_that_is_not_finite_is_a_gap() -> None:
    drawn = line_figure([("loss", [(0, 1.0), (1, float("nan")), (2, float("inf")), (3, 2.0)])], [2], "nats")
    assert drawn.startswith("<svg")
    assert "nats" in drawn


@pytest.mark.slow
def test_in_a_browser(run: Path, tmp_path: Path, browser: Chrome) -> None:
    """Figures are there without any script, and nothing is loaded from outside."""
    assert main([str(run), "--html", str(tmp_path / "page.html")]) == 0
    browser.get((tmp_path / "page.html").as_uri())
    figures = browser.find_elements(By.CSS_SELECTOR, ".figures svg")
    assert len(figures) >= 5
    assert all(figure.rect["height"] > 50 for figure in figures)
    assert browser.find_elements(By.TAG_NAME, "script") == []
    loaded = browser.execute_script("return performance.getEntriesByType('resource').map(one => one.name)")
    assert [name for name in loaded if not name.startswith("data:")] == []
    wide = browser.execute_script("return document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    assert wide, "the page is wider than its window"
