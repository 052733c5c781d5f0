"""What a site says of a failure keeps its type, its code lines and our sentence, and loses every id, path and value."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from flwr.app import ConfigRecord, Context, Message, MessageType, RecordDict
from flwr.supercore.task_identity import TaskIdentity
from tiny import tiny_cohort

from fl_rsna.federation.protocol.failures import ELSEWHERE, Failure, log_failure, scrub, scrub_failure, without_data
from fl_rsna.federation.protocol.messages import CONFIG, failure_of
from fl_rsna.federation.site.client_app import make_client_app
from fl_rsna.federation.site.handlers import SitePaths

IDS = {"ID_9f3ab2c1": "<patient>", "9f3ab2c1": "<patient>", "p1": "<patient>", "p1s2": "<image>", "5": "<study>"}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_cohort(tmp_path_factory.mktemp("own")).site_folder("site-1")


def raised(error: Exception) -> Exception:
    try:
        raise error
    except Exception as found:
        return found


def of(error: Exception, site: Path) -> Failure:
    return scrub_failure(raised(error), (site,), site / "memory")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("no p1 and no p1s2", "no <patient> and no <image>"),
        ("p12, xp1, p1_x", "p12, xp1, <patient>_x"),  # a short one only where it stands alone
        ("case_ID_9F3AB2C1.png and 9f3ab2c1x", "case_<patient>.png and <patient>x"),  # a long one anywhere, in any case
        ("batch 5 of 15", "batch <study> of 15"),
        ("/site/images/p1s2.png", "<site folder>/images/<image>.png"),
        ("/site-10/x.png", "<path>"),
        ("open '/home/dr smith/x y.csv'", "open '<path>'"),
        ("at /srv/p1/q, or ~/z", "at <path>, or <path>"),
        ("1.2.840.113619.2.55.3 is new", "<uid> is new"),
        ("got [1024, 1030, 1031, 7, 1.5e3, -2, 3, 4, 6] here", "got [<numbers> here"),
        ("expected shape (1, 3, 32, 32)", "expected shape (1, 3, 32, 32)"),
        ("wall/clock at 10:30", "wall/clock at 10:30"),
        (
            'File "/home/smith/env/lib/python3.11/site-packages/torch/nn/x.py", line 12',
            'File "site-packages/torch/nn/x.py", line 12',
        ),
        (
            'File "/opt/fl_rsna/fl_rsna/learning/training/train.py", line 3',
            'File "fl_rsna/learning/training/train.py", line 3',
        ),
        ('File "/tmp/smith.py", line 1', 'File "smith.py", line 1'),
    ],
)
def test_words_that_name_something_are_taken_out(text: str, said: str) -> None:
    assert scrub(text, IDS, {"/site": "<site folder>"}) == said


def test_a_failure_keeps_its_type_and_its_code_lines(site: Path) -> None:
    told = of(KeyError(pd.read_csv(site / "index.csv")["patient_id"][0]), site)
    assert told.error == "KeyError: '<patient>'"
    assert 'File "test_failures.py", line' in told.traceback
    assert "raise error" in told.traceback


def test_causes_are_scrubbed_too(site: Path) -> None:
    row = pd.read_csv(site / "index.csv").iloc[0]
    error = ValueError("site-1: expected slices")
    error.__cause__ = OSError(f"{site}/images/{row.image_id}.png is broken")
    error.add_note(f"of patient {row.patient_id}, series {row.series_id}, study {row.study_id}")
    told = of(error, site)
    assert told.error == "site-1: expected slices"
    assert "<site folder>/images/<image>.png is broken" in told.traceback
    assert "of patient <patient>, series <series>, study <study>" in told.traceback


def test_an_array_in_a_message_stays(site: Path) -> None:
    row = np.arange(1000, 1030, dtype=np.uint16)
    told = of(ValueError(f"bad row {row}"), site)
    assert told.error == "bad row [<numbers> "
    assert "1005" not in told.traceback


@pytest.mark.parametrize("damage", ["", "patient_id,image_id\np00,p00s0\n", "patient_id,study_id,series_id,image_id\n"])
def test_without_a_whole_index_only_the_type_leaves(tmp_path: Path, damage: str) -> None:
    if damage:
        (tmp_path / "index.csv").write_text(damage)
    told = of(OSError("p00 at /data/smith"), tmp_path)
    assert told.error == told.traceback == f"OSError: {ELSEWHERE}"


def test_before_any_site_is_found_only_our_own_sentence_leaves() -> None:
    assert without_data(ValueError("no cohort at /x")).error == "no cohort at /x"
    assert without_data(OSError("/x")).error == f"OSError: {ELSEWHERE}"


def test_the_log_of_the_site_has_everything(site: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    error = raised(OSError("p03s1.png is broken"))
    log_failure(error, "train of round 2", tmp_path / "deep" / "failures.log")
    log_failure(error, "train of round 3", tmp_path / "deep" / "failures.log")
    log_failure(error, "train of round 2", None)
    log_failure(error, "train of round 2", site / "index.csv" / "no-folder")  # cannot be written
    log, printed = (tmp_path / "deep" / "failures.log").read_text(), capsys.readouterr().err
    assert log.count("OSError: p03s1.png is broken") == printed.count("OSError: p03s1.png is broken") == 2
    assert "could not answer: train of round 3" in log


def test_a_deployed_site_prints_what_it_does_not_say(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    TaskIdentity.run_id, TaskIdentity.task_id, TaskIdentity.node_id = 1, 1, 1
    app = make_client_app(lambda context: SitePaths(folders=(site,), memory=site / "memory"))
    message = Message(RecordDict({CONFIG: ConfigRecord({"p03": "p03"})}), 5, MessageType.QUERY)
    failure = failure_of(app(message, Context(1, 5, {}, RecordDict(), {})))
    assert failure is not None
    assert failure[0] == f"KeyError: {ELSEWHERE}"
    printed = capsys.readouterr().err
    assert "could not answer: roll call" in printed
    assert "KeyError: 'instructions'" in printed
