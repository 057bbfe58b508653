"""MLflow that is down, slow, locked, or opened eight times at once: the training goes on, and nothing is lost."""

import json
import os
import sqlite3
import time

import pytest
from kd_distill import shipping, tracking
from kd_distill.journal import read_journal
from kd_distill.shipping import Shipper, send

from packages.distill.tests.faults.journals import append, assert_arrived, journal_at

pytestmark = pytest.mark.usefixtures("fresh")


def test_what_is_journalled_arrives_once_and_the_run_ends(tmp_path):
    tracking.client()
    journal = journal_at(tmp_path / "journal.jsonl")
    for step in range(1, 60):
        journal.metrics(step, {"train/loss": 1 / step, "train/lr": 0.1})
        time.sleep(0.005)
    journal.finish(kind="student", name="student-a", tags={})
    send(journal.path)
    assert_arrived(journal.path, "FINISHED")
    assert send(journal.path) == 0


def test_a_journal_is_read_with_all_its_keys_and_one_with_a_key_that_nobody_reads_is_refused(tmp_path):
    journal = journal_at(tmp_path / "journal.jsonl")
    declared = {"event": "model", "kind": "student", "name": "a", "tags": {}, "sha256": "ab" * 32}
    journal._append(declared)
    assert read_journal(journal.path)[-1] == declared
    other = tmp_path / "other.jsonl"  # not the journal itself, which its shipper goes on reading
    other.write_text(journal.path.read_text() + json.dumps({**declared, "digest": "ab"}) + "\n")
    with pytest.raises(ValueError, match="digest: Extra inputs are not permitted"):
        read_journal(other)


def test_each_event_is_on_disk_before_the_training_goes_on(tmp_path, monkeypatch):
    synced = []
    whole = os.fsync
    monkeypatch.setattr(os, "fsync", lambda fd: (synced.append(os.fstat(fd).st_size), whole(fd)))
    journal = journal_at(tmp_path / "journal.jsonl")
    monkeypatch.setattr(journal, "_shipper", type("Nobody", (), {"wake": lambda self: None})())
    journal.metrics(1, {"train/loss": 1.0})
    assert synced[-1] == journal.path.stat().st_size


def test_steps_that_a_killed_run_repeats_are_not_doubled(tmp_path):
    path = tmp_path / "journal.jsonl"
    journal = journal_at(path)
    for step in range(1, 31):
        journal.metrics(step, {"train/loss": float(step)})
    journal.close(30)  # the thread dies with its process
    send(path)  # arrived before the kill
    again = journal_at(path, resume_step=20)
    assert [e["step"] for e in read_journal(path)[1:]] == list(range(1, 21))
    for step in range(21, 41):
        again.metrics(step, {"train/loss": float(step)})
    send(path)
    assert_arrived(path, "RUNNING")


def test_steps_that_a_killed_run_repeats_are_not_doubled_when_they_are_sent_one_by_one(tmp_path):
    journal = journal_at(tmp_path / "journal.jsonl")
    for step in range(1, 7):
        append(journal.path, step, step)
    send(journal.path)
    journal_at(journal.path, resume_step=3)
    sender = shipping._Sender(journal.path)
    for step in range(4, 10):
        append(journal.path, step, 100 + step)  # the second life is at another time
        sender.send()
    client, run = tracking.client(), tracking.run_of(read_journal(journal.path)[0])
    assert [m.step for m in client.get_metric_history(run, "train/loss")] == list(range(1, 10))


def test_what_a_run_that_was_killed_at_its_end_measures_again_arrives_once(tmp_path):
    journal = journal_at(tmp_path / "journal.jsonl")
    append(journal.path, 6, 1)
    journal_at(journal.path, resume_step=6)  # all steps are done, the measure after the last of them is not sent
    append(journal.path, 6, 2)
    assert [e["time"] for e in read_journal(journal.path)[1:]] == [1, 2]
    send(journal.path)
    client, run = tracking.client(), tracking.run_of(read_journal(journal.path)[0])
    assert [m.timestamp for m in client.get_metric_history(run, "train/loss")] == [1]


def test_two_that_send_one_journal_while_it_grows_double_nothing(tmp_path):
    """As `distill sync` beside a training: what one has sent, the other is about to send."""
    journal = journal_at(tmp_path / "journal.jsonl")
    one, two = shipping._Sender(journal.path), shipping._Sender(journal.path)
    for step in range(1, 7):
        append(journal.path, step, step)
        assert [sender.send() for sender in ((one, two) if step % 2 else (two, one))] == [1, 0]
    assert_arrived(journal.path, "RUNNING")


def test_a_run_that_was_half_created_is_completed(tmp_path):
    journal = journal_at(tmp_path / "journal.jsonl")
    experiment = tracking._experiment("distill")
    tracking.client().create_run(experiment, tags={"kd.key": journal.start["key"]}, run_name="student-a")
    journal.metrics(1, {"train/loss": 1.0})
    send(journal.path)
    assert_arrived(journal.path, "RUNNING")


def test_the_copy_of_an_export_names_its_model_and_does_not_end_the_run(tmp_path):
    journal = journal_at(tmp_path / "journal.jsonl")
    journal.metrics(1, {"train/loss": 1.0})
    journal.copy_with_model(tmp_path / "copy.jsonl", kind="student", name="student-a-e1", tags={"kd.epoch": "1"})
    assert [e["event"] for e in read_journal(tmp_path / "copy.jsonl")] == ["start", "metrics", "model"]
    assert [e["event"] for e in read_journal(journal.path)] == ["start", "metrics"]
    send(tmp_path / "copy.jsonl")
    assert_arrived(journal.path, "RUNNING")


def test_a_database_that_another_process_locks_for_a_while_costs_the_training_nothing(tmp_path):
    tracking.client()
    tracking._experiment("distill")
    journal = journal_at(tmp_path / "journal.jsonl")
    holder = sqlite3.connect(tmp_path / "mlflow.db", isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    slowest = 0.0
    for step in range(1, 40):
        begin = time.monotonic()
        journal.metrics(step, {"train/loss": float(step)})
        slowest = max(slowest, time.monotonic() - begin)
        time.sleep(0.01)
    assert slowest < 1.0  # the lock is held for longer than all of these together
    holder.execute("ROLLBACK")
    holder.close()
    journal.finish(kind="student", name="student-a", tags={})
    send(journal.path)
    assert_arrived(journal.path, "FINISHED")


def test_a_shipper_whose_journal_is_gone_ends_quietly(tmp_path):
    shipper = Shipper(tmp_path / "journal.jsonl")
    assert shipper.finish(5)


def test_sync_says_what_it_sent_and_which_folder_has_no_journal(tmp_path):
    from kd_distill.cli import app
    from typer.testing import CliRunner

    run = tmp_path / "runs" / "a"
    journal = journal_at(run / "journal.jsonl")
    event = {"event": "metrics", "step": 1, "time": 5, "values": {"train/loss": 2.0}}
    with journal.path.open("a") as file:
        file.write(json.dumps(event) + "\n")
    result = CliRunner().invoke(app, ["sync", str(tmp_path / "runs")])
    assert result.exit_code == 0, result.output
    assert "student-a: 1 events sent" in result.output
    assert_arrived(journal.path, "RUNNING")
    assert "student-a: 0 events sent" in CliRunner().invoke(app, ["sync", str(tmp_path / "runs")]).output
    (tmp_path / "empty").mkdir()
    result = CliRunner().invoke(app, ["sync", str(tmp_path / "empty")])
    assert result.exit_code == 2
    assert "no journal.jsonl" in result.output
