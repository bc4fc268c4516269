import errno
import json
import math
import os
import resource
import signal
import struct
import subprocess
import sys
import time

import numpy as np
import pytest
from tensorboardX.proto.event_pb2 import Event
from tensorboardX.record_writer import masked_crc32c

from jaxdl.core.errors import UserError
from jaxdl.core.task import Curve
from jaxdl.runtime.run_log import open_log, progress, read_metrics

WATCHED = (Curve("eval/return_mean", True, "", short="return"), Curve("episode_return", True, "", short="return"),
           Curve("elbo", True, "", short="elbo"), Curve("loss", False, "", short="loss"))


def events_of(folder):
    """Every event, in TensorBoard's order; checks the format of the file with each."""
    found = []
    for path in sorted((folder / "tensorboard").iterdir()):
        data = path.read_bytes()
        while data:
            (size,) = struct.unpack("Q", data[:8])
            body = data[12 : 12 + size]
            assert data[8:12] == struct.pack("I", masked_crc32c(data[:8]))
            assert data[12 + size : 16 + size] == struct.pack("I", masked_crc32c(body))
            found.append(Event.FromString(body))
            data = data[16 + size :]
    return found


def scalars_of(folder):
    return [(e.step, {v.tag: v.simple_value for v in e.summary.value}) for e in events_of(folder) if e.summary.value]


def write(folder, steps, resume_step=None):
    log = open_log(folder, resume_step)
    for step in steps:
        log.row(step, {"loss": step / 4})
    log.close()


def steps_of(folder):
    return [row["step"] for row in read_metrics(folder / "metrics.jsonl")]


def test_rows_are_strict_json_one_a_line(tmp_path):
    log = open_log(tmp_path / "run")
    log.row(10, {"loss": 0.5, "eval/return_mean": np.float32(2.5), "q": math.nan})
    text = (tmp_path / "run" / "metrics.jsonl").read_text()  # there before close
    assert text.endswith("\n")
    row = json.loads(text, parse_constant=pytest.fail)
    assert row.pop("wall_s") >= 0
    assert row == {"step": 10, "loss": 0.5, "eval/return_mean": 2.5, "q": None}
    log.row(20, {"loss": np.array([1.0, np.inf, 3.0])})
    log.close()
    rows = read_metrics(tmp_path / "run" / "metrics.jsonl")
    assert [row["step"] for row in rows] == [10, 20]
    assert rows[1]["loss"][::2] == [1.0, 3.0]
    assert math.isnan(rows[1]["loss"][1])
    assert math.isnan(rows[0]["q"])
    assert rows[0]["wall_s"] <= rows[1]["wall_s"]


def test_tensorboard_gets_numbers_and_of_a_population_mean_and_extremes(tmp_path):
    log = open_log(tmp_path)
    log.row(10, {"loss": 0.5})
    log.row(20, {"loss": np.array([1.0, 2.0, 6.0])})
    log.close()
    assert scalars_of(tmp_path) == [(10, {"loss": 0.5}), (20, {"loss": 3.0, "loss_min": 1.0, "loss_max": 6.0})]
    first = events_of(tmp_path)[0]
    assert first.file_version == "brain.Event:2"
    assert abs(first.wall_time - time.time()) < 60


def test_resume_drops_the_rows_that_will_be_done_again(tmp_path):
    write(tmp_path, [10, 20, 30, 40])
    kept = (tmp_path / "metrics.jsonl").read_bytes().splitlines(keepends=True)[:2]
    write(tmp_path, [30, 40, 50], resume_step=20)
    assert steps_of(tmp_path) == [10, 20, 30, 40, 50]
    assert (tmp_path / "metrics.jsonl").read_bytes().splitlines(keepends=True)[:2] == kept
    # TensorBoard forgets what it read at this step and later ones when it meets the mark in the newer file
    events = events_of(tmp_path)
    marks = [i for i, e in enumerate(events) if e.session_log.status]
    assert [events[i].step for i in marks] == [21]
    assert [e.step for e in events[marks[0] + 1 :]] == [30, 40, 50]
    assert len(list((tmp_path / "tensorboard").iterdir())) == 2


def test_resume_removes_a_torn_line_and_wall_time_goes_on(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1, "wall_s": 5.0}\n{"step": 2, "wall_s": 1234.5}\n{"step": 3, "wal')
    assert steps_of(tmp_path) == [1, 2]
    write(tmp_path, [3], resume_step=2)
    rows = read_metrics(path)
    assert [row["step"] for row in rows] == [1, 2, 3]
    assert 1234.5 <= rows[2]["wall_s"] < 1300
    write(tmp_path, [2], resume_step=1)
    assert read_metrics(path)[1]["wall_s"] < 100  # from the last row that stayed


def test_a_last_row_that_lacks_only_its_newline_stays(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "wall_s": 5.0}')
    assert steps_of(tmp_path) == [1]
    write(tmp_path, [2], resume_step=1)
    assert steps_of(tmp_path) == [1, 2]


def test_a_new_run_does_not_touch_the_metrics_of_another(tmp_path):
    write(tmp_path, [1])
    before = (tmp_path / "metrics.jsonl").read_bytes()
    with pytest.raises(UserError, match="holds the metrics of another run"):
        open_log(tmp_path)
    assert (tmp_path / "metrics.jsonl").read_bytes() == before


def test_resume_without_metrics_begins_them(tmp_path):
    write(tmp_path, [5], resume_step=4)
    assert steps_of(tmp_path) == [5]


GOOD = '{"step": 1, "wall_s": 1.0}\n'


@pytest.mark.parametrize("bad", [
    "{", "", "[1]", "null", '{"step": 2}', '{"wall_s": 1.0}', '{"step": 2.5, "wall_s": 1.0}',
    '{"step": -1, "wall_s": 1.0}',
    '{"step": 2, "wall_s": null}', '{"step": 2, "wall_s": 1.0, "loss": NaN}', '{"step": 2, "wall_s": 1.0, "loss": "x"}',
    '{"step": 2, "wall_s": 1.0, "loss": [1, [2]]}', '{"step": 2, "wall_s": 1.0, "loss": {}}', "\0\0\0",
    '{"step": 2, "wall_s": 1.0, "loss": 1' + "0" * 400 + "}", '{"step": true, "wall_s": 1.0}',
    '{"step": 2, "wall_s": 1.0, "a\\ud800": 1}', '{"step": 2, "wall_s": 1e999}',
])
def test_a_damaged_line_is_named(tmp_path, bad):
    path = tmp_path / "metrics.jsonl"
    path.write_text(GOOD + bad + "\n" + GOOD)
    before = path.read_bytes()
    for read in (lambda: read_metrics(path), lambda: open_log(tmp_path, 1)):
        with pytest.raises(UserError, match=r"metrics\.jsonl, line 2 is damaged"):
            read()
    assert path.read_bytes() == before


def test_lists_are_as_long_as_there_are_members(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text(GOOD + '{"step": 2, "wall_s": 1.0, "loss": [1, null]}\n')
    assert len(read_metrics(path, members=2)) == 2
    for members in (1, 3):
        with pytest.raises(UserError, match=f"line 2 is damaged .*'loss' has 2 numbers, and the run {members} members"):
            read_metrics(path, members)


def test_what_is_read_is_bounded_before_it_is_built(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(GOOD.encode() + b"[" + b"[]," * 5_000_000 + b"[]]\n")
    began = time.process_time()
    with pytest.raises(UserError, match="line 2 is damaged"):
        read_metrics(path)
    assert time.process_time() - began < 0.5  # built first, five million lists take seconds
    os.truncate(path, 2**40)
    with pytest.raises(UserError, match="larger than"):
        read_metrics(path)
    path.unlink()
    os.mkfifo(path)
    for read in (lambda: read_metrics(path), lambda: open_log(tmp_path, 1)):
        with pytest.raises(UserError, match="is not a file"):
            read()


def test_a_last_line_is_torn_only_where_its_end_is_missing(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text(GOOD + '{"step": 2, "wal')
    assert len(read_metrics(path)) == 1
    path.write_text(GOOD + '{"step": 2, "wal\n')
    with pytest.raises(UserError, match="line 2 is damaged"):
        read_metrics(path)


def test_missing_and_unwritable(tmp_path):
    with pytest.raises(UserError, match=r"there is no file .*metrics\.jsonl"):
        read_metrics(tmp_path / "metrics.jsonl")
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        open_log(tmp_path / "file")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "tensorboard").write_text("")
    with pytest.raises(UserError, match="tensorboard cannot be written"):
        open_log(tmp_path / "run")


def test_a_full_disk_costs_the_row_and_nothing_else(tmp_path):
    log = open_log(tmp_path)
    log.row(1, {"loss": 1.0})
    before = (tmp_path / "metrics.jsonl").read_bytes()
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 20, old[1]))  # half a row fits: a real short write
    try:
        with pytest.raises(UserError, match=r"metrics\.jsonl cannot be written: " + os.strerror(errno.EFBIG)):
            log.row(2, {"loss": 2.0})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
        signal.signal(signal.SIGXFSZ, ignored)
    assert (tmp_path / "metrics.jsonl").read_bytes() == before
    log.row(3, {"loss": 3.0})
    log.close()
    assert steps_of(tmp_path) == [1, 3]


def test_a_killed_process_leaves_whole_rows(tmp_path):
    program = ("import sys; from jaxdl.runtime.run_log import open_log; log = open_log(sys.argv[1]); step = 0\n"
               "while True: step += 1; log.row(step, {'loss': 0.1 * step, 'q': [1.0] * 50}); print(step, flush=True)")
    process = subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    seen = [int(process.stdout.readline()) for _ in range(300)][-1]
    process.kill()
    process.wait()
    process.stdout.close()
    found = steps_of(tmp_path)
    assert found == list(range(1, len(found) + 1))
    assert len(found) >= seen  # what the process had written is there, without a flush or a close
    write(tmp_path, [seen + 1], resume_step=seen)
    assert steps_of(tmp_path) == list(range(1, seen + 2))


def lines_of(capsys):
    out, err = capsys.readouterr()
    assert out == ""
    return err.splitlines()


def test_progress_without_a_terminal_is_a_line_a_tenth_and_an_evaluation(capsys):
    for show in ("bar", "lines"):  # a bar needs a terminal
        with progress(1000, show=show, watched=WATCHED) as bar:
            for step in range(20, 1001, 20):
                evaluated = {"eval/return_mean": np.array([3.0, 5.0])} if step == 440 else {}
                bar.update(step, {"loss": 1 / step} | evaluated)
        lines = lines_of(capsys)
        shown = [int(line.split()[1].replace(",", "")) for line in lines]
        assert shown == [100, 200, 300, 400, 440, 500, 600, 700, 800, 900, 1000]
        assert lines[0].startswith("step 100 of 1,000, ")
        assert "steps/s" in lines[0]
        assert "left" in lines[0]
        assert lines[0].endswith("loss 0.01")
        assert lines[5].endswith("evaluated return 4, loss 0.002")  # the last evaluation is still shown
        assert "left" not in lines[-1]


def test_progress_of_a_resumed_run_and_of_one_with_nothing_to_do(capsys):
    with progress(1000, 900, show="lines", watched=WATCHED) as bar:
        bar.update(950, {})
        bar.update(1000, {})
    assert [line.split(",")[0] for line in lines_of(capsys)] == ["step 1"]  # 1,000
    with progress(0, 0, show="lines"):
        pass
    with progress(1000, show="nothing") as bar:
        bar.update(1000, {"eval/elbo": 1.0})
    assert lines_of(capsys) == []


class Terminal:
    def __init__(self, stream):
        self.stream = stream

    def isatty(self):
        return True

    def __getattr__(self, name):
        return getattr(self.stream, name)


def test_progress_on_a_terminal_is_one_line_that_changes(capsys, monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setattr(sys, "stderr", Terminal(sys.stderr))
    with progress(1000, 0, show="bar", watched=WATCHED) as bar:
        bar.update(100, {"loss": 0.25})
        time.sleep(0.01)
        bar.update(600, {"episode_return": 12.5})
        bar.update(1000, {"eval/return_mean": 90.0})
        print("said meanwhile")
    out, err = capsys.readouterr()
    assert out == "said meanwhile\n"  # stdout stays stdout
    assert "600/1,000" in err
    assert "return 12.5  loss 0.25" in err
    assert "evaluated return 90  return 12.5  loss 0.25" in err
    assert "steps/s" in err
    assert err.count("\n") == 1
