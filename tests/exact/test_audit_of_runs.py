"""The audit on a true run's files, as they are and with one thing at a time taken away, damaged or added.

The run: launch 1 on two ranks, killed; launch 2 fell back to an older checkpoint and was killed too; launch 3 took the
newest again, took up new samples and went on to the end.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from launching import LONGEST, ROOT, Run, stop
from omegaconf import OmegaConf

from tests.helpers.s3_store import s3_server, upload

pytestmark = [pytest.mark.slow, pytest.mark.dist]

SETTINGS = ["global_train_batch_size=4", "device_train_microbatch_size=2", "save_num_checkpoints_to_keep=-1"]
AT_FIRST, SAMPLES = 24, 32
BATCHES = SAMPLES // 4


@dataclass
class Folders:
    """A copy of a run's files, to be changed."""

    save_folder: Path
    mds: Path

    def audit(self, *arguments: str, **environment: str) -> tuple[int, str]:
        """The real command's exit code and what it printed."""
        command = [sys.executable, "recipes/audit.py", str(self.save_folder), *(arguments or [str(self.mds)])]
        variables = {**os.environ, **environment}
        done = subprocess.run(
            command, cwd=ROOT, env=variables, capture_output=True, text=True, check=False, timeout=LONGEST
        )
        assert "Traceback" not in done.stderr, done.stderr
        return done.returncode, done.stdout + done.stderr

    def configure(self, **settings: str) -> None:
        """Change settings of ``config.yaml``."""
        path = self.save_folder / "config.yaml"
        config = OmegaConf.load(path)
        for key, value in settings.items():
            OmegaConf.update(config, key.replace("__", "."), value)
        OmegaConf.save(config, path)

    def verdicts(self, *arguments: str, **environment: str) -> tuple[int, dict[str, Any]]:
        """The exit code and what ``--json`` writes."""
        path = self.save_folder / "audit.json"
        code, printed = self.audit(*arguments, "--json", str(path), **environment)
        assert path.is_file(), printed
        return code, json.loads(path.read_text())

    def lines(self, rank: int) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.save_folder / f"ledger/rank{rank}.jsonl").read_text().splitlines()]

    def write(self, rank: int, lines: list[dict[str, Any]]) -> None:
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (self.save_folder / f"ledger/rank{rank}.jsonl").write_text(text)


@pytest.fixture(scope="module")
def finished(many_samples: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The run of this file, finished; ``unfinished`` beside it is what it was like after launch 2."""
    folder = tmp_path_factory.mktemp("run")
    run = Run(many_samples, folder, [*SETTINGS, f"convert.json={folder}/raw/openspatial.json"])
    run.arrive(AT_FIRST)
    trainer = run.start(2, "save_interval=2ba")
    assert run.wait_for_batches(trainer, 5), run.output
    stop(trainer, signal.SIGKILL)
    newest = run.save_folder / "ep0-ba4-rank0.pt"
    for path in run.save_folder.glob("ep0-ba*"):
        if path.name > newest.name:
            path.unlink()
    newest.rename(run.folder / newest.name)
    trainer = run.start(1, "save_interval=100ba")
    assert run.wait_for_batches(trainer, 2), run.output
    stop(trainer, signal.SIGKILL)
    (run.folder / newest.name).rename(newest)
    shutil.copytree(run.save_folder, run.folder / "unfinished", symlinks=True)
    run.arrive(SAMPLES)
    assert run.train(1, "save_interval=2ba") == 0, run.output
    return run


@pytest.fixture
def copy(finished: Run, tmp_path: Path) -> Folders:
    return copied(finished, finished.save_folder, tmp_path)


def copied(run: Run, save_folder: Path, folder: Path) -> Folders:
    shutil.copytree(save_folder, folder / "run", symlinks=True)
    shutil.copytree(run.mds, folder / "mds")
    return Folders(folder / "run", folder / "mds")


def test_as_it_is_with_a_launch_that_fell_back_to_an_older_checkpoint(copy: Folders) -> None:
    launches = [json.loads(line) for line in (copy.save_folder / "launches.jsonl").read_text().splitlines()]
    assert [line["resumed_batch"] for line in launches] == [0, 2, 4]
    code, printed = copy.audit(str(copy.mds), "--json", str(copy.save_folder / "audit.json"))
    assert code == 0, printed
    assert "exactly once: yes" in printed
    assert "proof in ep1-ba8-rank0.pt" in printed
    found = json.loads((copy.save_folder / "audit.json").read_text())
    verdicts = {key: found[key] for key in ("exactly_once", "at_most_once", "complete", "complete_json")}
    assert verdicts == {"exactly_once": "yes", "at_most_once": "yes", "complete": "yes", "complete_json": "no"}
    assert (found["seen_once"], found["repeated"], found["never_seen"]) == (SAMPLES, 0, 0)


def test_half_of_the_ids_gone_is_seen_without_the_data_set(copy: Folders) -> None:
    (copy.save_folder / "config.yaml").unlink()
    code, printed = copy.audit("--json", str(copy.save_folder / "audit.json"))
    assert code == 75, printed
    assert "exactly once: not checked" in printed
    for rank in (0, 1):
        copy.write(rank, [{**line, "ids": line["ids"][::2]} for line in copy.lines(rank)])
    code, printed = copy.audit("--json", str(copy.save_folder / "audit.json"))
    assert code == 1, printed
    assert f"the checkpoint has {SAMPLES} trained samples, the ledger" in printed


def test_half_of_the_ids_gone_where_the_data_set_is_a_url(copy: Folders) -> None:
    with s3_server() as environment:
        upload(copy.mds, environment)
        shutil.rmtree(copy.mds)
        copy.configure(train_loader__dataset__remote="s3://sets/spatial")
        code, found = copy.verdicts(**environment)
        assert (code, found["exactly_once"], found["complete"]) == (0, "yes", "yes")
        for rank in (0, 1):
            copy.write(rank, [{**line, "ids": line["ids"][::2]} for line in copy.lines(rank)])
        code, found = copy.verdicts(**environment)
        assert (code, found["exactly_once"], found["complete"]) == (1, "no", "no")
        assert (found["seen_once"], found["never_seen"]) == (SAMPLES / 2, SAMPLES / 2)


def test_a_json_of_the_hub_counts_where_it_was_downloaded(copy: Folders, tmp_path: Path) -> None:
    url, cache = "hf://datasets/someone/spatial/entries.json", tmp_path / "cache"
    copy.configure(convert__json=url, convert__json_cache=str(cache))
    code, printed = copy.audit(str(copy.mds))
    assert code == 0, printed
    assert f"not checked, {url} is not a file here" in printed
    cache.mkdir()
    seen = [name for rank in (0, 1) for line in copy.lines(rank) for name in line["ids"]]
    for ids, verdict in ((seen, "yes"), ([*seen, "late"], "no")):
        content = json.dumps([{"filename": name} for name in ids])
        (cache / "entries.json").write_text(content)
        note = {"url": url, "etag": "e", "bytes": len(content)}
        (cache / ".entries.json.source.json").write_text(json.dumps(note))
        code, found = copy.verdicts(str(copy.mds))
        assert (code, found["complete_json"]) == (0, verdict)
    (cache / "entries.json").write_text(content[:-1])
    assert copy.verdicts(str(copy.mds))[1]["complete_json"].startswith("not checked"), "half of a download"


def test_one_id_in_the_place_of_another_is_seen_without_the_data_set(copy: Folders) -> None:
    (copy.save_folder / "config.yaml").unlink()
    lines = copy.lines(0)
    lines[-1]["ids"][0] = "another"
    copy.write(0, lines)
    code, printed = copy.audit("--json", str(copy.save_folder / "audit.json"))
    assert code == 1, printed
    assert "the trained samples of the ledger are not those that the checkpoint has counted" in printed


def test_the_end_of_the_pass_is_known_without_passes_jsonl(copy: Folders) -> None:
    (copy.save_folder / "ledger" / "passes.jsonl").unlink()
    code, printed = copy.audit()
    assert code == 0, printed
    assert f"pass 0 (finished, {BATCHES} batches)" in printed


def test_a_pass_that_goes_on_is_not_complete(finished: Run, tmp_path: Path) -> None:
    copy = copied(finished, finished.folder / "unfinished", tmp_path)
    code, printed = copy.audit()
    assert code == 75, printed
    assert "pass 0 (not finished, 4 batches)" in printed
    assert "at most once: yes" in printed
    assert "complete, data set as it is today: no" in printed
    assert "exactly once: NO" in printed


def test_dead_lines_do_not_stand_in_for_missing_ones(copy: Folders) -> None:
    """Launch 3 went on after batch 3; its first two lines are gone, launch 1 and 2 have batches of these numbers."""
    lines = copy.lines(0)
    copy.write(0, [line for line in lines if not (line["launch"] == 3 and line["batch"] < 6)])
    code, printed = copy.audit()
    assert code == 1, printed
    assert "batch 4: 0 lines of rank 0 by attempt 3, 1 expected, and 1 batches more" in printed


def test_a_line_twice_is_a_sample_twice(copy: Folders) -> None:
    lines = copy.lines(0)
    copy.write(0, [*lines, lines[-1]])
    code, printed = copy.audit()
    assert code == 1, printed
    assert f"batch {BATCHES - 1}: 2 lines of rank 0 by attempt 3, 1 expected" in printed
    assert "repeated            4" in printed
    assert lines[-1]["ids"][0] in printed


def test_without_launches_jsonl_the_attempts_are_not_known(copy: Folders) -> None:
    (copy.save_folder / "launches.jsonl").unlink()
    code, printed = copy.audit()
    assert code == 0, printed
    assert "launches.jsonl is lost: the number of attempts is not known" in printed


def test_a_damaged_line_is_named(copy: Folders) -> None:
    path = copy.save_folder / "ledger" / "rank0.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    lines[-2] = lines[-2][:20] + b"\n"
    path.write_bytes(b"".join(lines))
    code, printed = copy.audit()
    assert code == 1, printed
    assert f"ledger/rank0.jsonl: line {len(lines) - 1} is damaged" in printed
    assert f"batch {BATCHES - 2}: 0 lines of rank 0" in printed


def test_a_ledger_cut_at_the_end_is_not_whole(copy: Folders) -> None:
    path = copy.save_folder / "ledger" / "rank0.jsonl"
    path.write_bytes(path.read_bytes()[:-5])
    code, printed = copy.audit()
    assert code == 1, printed
    assert f"batch {BATCHES - 1}: 0 lines of rank 0" in printed


def test_generations_that_came_after_the_end(copy: Folders) -> None:
    add_generation(copy.mds, ["late-1", "late-2", "late-3"])
    code, printed = copy.audit()
    assert code == 75, printed
    assert "3 samples that this pass never had" in printed
    assert "at most once: yes" in printed
    assert "complete, data set as it is today: no" in printed


def add_generation(mds: Path, ids: list[str]) -> None:
    """What the audit reads of a generation."""
    folder = mds / "gen-00002"
    folder.mkdir()
    (folder / "ids.txt").write_text("".join(f"{one}\n" for one in ids))
    shard = {"samples": len(ids), "raw_data": {"basename": "shard.00000.mds", "bytes": 1, "hashes": {}}}
    (folder / "index.json").write_text(json.dumps({"version": 2, "shards": [shard]}))
    manifest = json.loads((mds / "manifest.json").read_text())
    manifest["generations"].append({"name": folder.name, "samples": len(ids), "fingerprint": "f"})
    (mds / "manifest.json").write_text(json.dumps(manifest))


def test_a_generation_that_is_another_one_today(copy: Folders) -> None:
    manifest = json.loads((copy.mds / "manifest.json").read_text())
    manifest["generations"][0]["fingerprint"] = "0" * 64
    (copy.mds / "manifest.json").write_text(json.dumps(manifest))
    code, printed = copy.audit()
    assert code == 1, printed
    assert "gen-00000 is not what it was when the pass had it" in printed


def test_a_sample_that_the_pass_had_and_left_out(copy: Folders) -> None:
    """Ledger and proof agree, and the data set has one more in a generation that the pass had."""
    ids = copy.mds / "gen-00001" / "ids.txt"
    ids.write_text(ids.read_text() + "left-out\n")
    index = json.loads((copy.mds / "gen-00001" / "index.json").read_text())
    index["shards"][-1]["samples"] += 1
    (copy.mds / "gen-00001" / "index.json").write_text(json.dumps(index))
    manifest = json.loads((copy.mds / "manifest.json").read_text())
    manifest["generations"][1]["samples"] += 1
    (copy.mds / "manifest.json").write_text(json.dumps(manifest))
    code, printed = copy.audit()
    assert code == 1, printed
    assert "never seen          1  left-out" in printed


def test_damaged_checkpoints_are_passed_over(copy: Folders) -> None:
    for newest in copy.save_folder.glob("ep*-ba8-rank0.pt"):
        content = bytearray(newest.read_bytes())
        content[len(content) // 2] ^= 0xFF
        newest.write_bytes(content)
    code, printed = copy.audit()
    assert code == 75, printed
    assert "ep1-ba8-rank0.pt: not a whole checkpoint, passed over" in printed
    assert "pass 0 (not finished, 6 batches)" in printed
    assert "2 batches after the newest checkpoint" in printed


def test_a_branch_answers_for_its_own_part_and_names_its_parent(finished: Run) -> None:
    parent = finished.save_folder / "ep0-ba4-rank0.pt"
    branch = Run(finished.source, finished.folder, SETTINGS, name="branch")
    assert branch.train(2, f"load_path={parent}", "save_interval=2ba") == 0, branch.output
    folders = Folders(branch.save_folder, branch.mds)
    code, printed = folders.audit()
    assert code == 0, printed
    assert "ep0-ba4-rank0.pt (batch 4)" in printed
    assert f"seen once   {SAMPLES - 16:>9}" in printed
    assert "exactly once: yes" in printed
    folders.write(1, [{**line, "ids": []} for line in folders.lines(1)])
    assert folders.audit()[0] == 1


def test_a_pass_in_which_nothing_carried_loss_was_no_training(many_samples: Path, folder: Path) -> None:
    run = Run(many_samples, folder, SETTINGS)
    run.arrive(8)
    assert run.train(1, "train_loader.dataset.max_seq_len=10") == 2, run.output
    picture = re.search(r"of one sample alone take (\d+)", run.output)
    assert picture is not None, run.output
    assert run.train(1, f"train_loader.dataset.max_seq_len={int(picture[1]) + 1}") == 0, run.output
    code, printed = Folders(run.save_folder, run.mds).audit()
    assert code == 1, printed
    assert "never trained on: no sample of the pass carried loss" in printed
    assert "at most once: yes" in printed
    assert "complete, data set as it is today: no" in printed
