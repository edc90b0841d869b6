"""The small form of each of the student's benchmarks: both sides run, agree, and fill the line."""

import json
import threading

import pytest
import tiny_model

from benchmarks.__main__ import NAMES, main

EVERY_LINE = {"benchmark", "unit", "ratio", "ours", "theirs", "same_result", "threads", "rows_from"}
FIELDS = {
    "train-short": {"held_out_loss", "peak_gflops", "share_of_peak", "steps", "batch_rows"},
    "train-long": {"held_out_loss", "peak_gflops", "share_of_peak", "steps", "batch_rows"},
    "predict-label": {"rows", "same_share", "same_share_float32", "differences"},
    "predict-text": {"rows", "same_share_float32", "differences", "widest_gap_nats"},
    "iteration": {"seconds", "accuracy", "folds", "steps", "seeds", "processes_of_theirs"},
}


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    folder = tmp_path_factory.mktemp("benched")
    return f"file:{tiny_model.write(folder / 'model')}"


@pytest.mark.parametrize("name", NAMES)
def test_small_form_runs_both_sides_and_they_agree(name, reference, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("TUTELAGE_HOME", str(tmp_path))
    main([name, "--json", "--small", "--model", reference, "--threads", "1"])
    line = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert EVERY_LINE | FIELDS[name] <= line.keys()
    assert line["benchmark"] == name
    assert line["same_result"] is True
    assert line["ratio"] > 0
    for side in ("ours", "theirs"):
        assert line[side]["rounds"] == 1
        assert line[side]["low"] <= line[side]["median"] <= line[side]["high"]
    if name == "iteration":
        assert line["accuracy"]["ours"].keys() == {"cross_fit", "evaluate", "judge"}
        assert line["accuracy"]["theirs"]["evaluate"] > 0.9
        assert line["seconds"]["ours"].keys() == line["seconds"]["theirs"].keys()
    if name.startswith("train"):
        # Learnt something: a model of random weights starts at about 6 nats.
        assert line["held_out_loss"]["ours"] < 4


def test_students_work_side_by_side_and_what_they_give_keeps_its_order():
    from benchmarks.ourstudent import OurStudents

    both = threading.Barrier(2, timeout=10)

    def job(number):
        def work(student):
            # Only two at a time get past here.
            both.wait()
            return number, student

        return work

    given = OurStudents(["a", "b"]).side_by_side([job(number) for number in range(4)])
    assert [number for number, _ in given] == [0, 1, 2, 3]
    assert {student for _, student in given} == {"a", "b"}


def test_sides_that_differ_end_with_1(capsys):
    from benchmarks.measure import Side, report

    with pytest.raises(SystemExit) as ended:
        report("x", "rows/s", Side("ours", [4.0]), Side("theirs", [2.0]), {}, same=False)
    assert ended.value.code == 1
    assert json.loads(capsys.readouterr().out)["ratio"] == 2.0
