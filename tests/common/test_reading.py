"""Whatever is wrong with a file that an earlier step wrote, one sentence names it and says what to do."""

import json
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from fl_rsna.common.command_end import EndKind, end_of
from fl_rsna.common.reading import (
    FORMAT_VERSION,
    HASH,
    UnreadableFile,
    check_keys,
    dump_checked_line,
    dump_hashed_json,
    json_sha256,
    line_of,
    numbers,
    read_csv,
    read_json,
    read_parquet,
    read_yaml,
)

DO = "make it again"
Read = Callable[[Path], object]

READERS: dict[str, tuple[Read, bytes]] = {
    "json": (lambda path: read_json(path, DO, keys={"status": str}), b'{"status": "finished"}'),
    "yaml": (lambda path: read_yaml(path, DO, keys={"data": dict}), b"data:\n  name: demo\n"),
    "csv": (lambda path: read_csv(path, DO, columns=("round",)), b"round,site\n1,site-1\n"),
}
DAMAGES = {
    "missing": None,
    "empty": b"",
    "zeros": bytes(64),
    "garbage": bytes(range(256)) * 4,
    "no UTF-8": b'{"status": "\xff\xfe", "data": {}}',
    "nested too deep": b"[" * 100_000,
    "another type": b"17",
    "null": b"null",
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("kind", READERS)
def test_every_damage_is_one_sentence_with_file_and_advice(kind: str, damage: str, tmp_path: Path) -> None:
    path, content = tmp_path / f"file.{kind}", DAMAGES[damage]
    read, whole = READERS[kind]
    path.write_bytes(whole)
    read(path)
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UnreadableFile) as caught:
        read(path)
    said = str(caught.value)
    assert str(path) in said
    assert said.endswith(DO)
    assert "\n" not in said


def test_a_damaged_file_is_a_refusal(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(b"{")
    for read in (lambda: read_json(tmp_path / "a.json", DO), lambda: read_yaml(tmp_path / "none.yaml", DO)):
        with pytest.raises(UnreadableFile) as caught:
            read()
        assert (end_of(caught.value).kind, end_of(caught.value).code) == (EndKind.refused, 2)


def test_a_folder_in_a_file_s_place_is_named(tmp_path: Path) -> None:
    for read, _ in READERS.values():
        with pytest.raises(UnreadableFile, match="which cannot be read: Is a directory"):
            read(tmp_path)


def test_a_parquet_file_is_refused_at_every_cut(tmp_path: Path) -> None:
    path = tmp_path / "table.parquet"
    pd.DataFrame({"a": [1, 2, 3]}).to_parquet(path)
    whole = path.read_bytes()
    assert len(read_parquet(path, DO, columns=["a"])) == 3
    with pytest.raises(UnreadableFile, match=r"columns b in .*table\.parquet"):
        read_parquet(path, DO, columns=["a", "b"])
    for left in (0, 1, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:left])
        with pytest.raises(UnreadableFile, match=r"table\.parquet"):
            read_parquet(path, DO)


@pytest.mark.parametrize(
    ("found", "said"),
    [
        ({}, "expected rounds in"),
        ({"rounds": None}, "expected rounds as a whole number .* got nothing"),
        ({"rounds": "3"}, "got text"),
        ({"rounds": True}, "got true or false"),
        ({"rounds": []}, "got a list"),
    ],
)
def test_a_key_that_is_missing_or_of_another_kind_is_named(found: dict[str, object], said: str, tmp_path: Path) -> None:
    with pytest.raises(UnreadableFile, match=said):
        check_keys(found, tmp_path / "a.json", {"rounds": int})


def test_what_json_has_no_number_for_is_refused_unless_a_hash_vouches_for_it(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    for text in ("NaN", "Infinity", "-Infinity"):
        path.write_text(f'{{"loss": {text}}}')
        with pytest.raises(UnreadableFile, match=f"got {text}"):
            read_json(path, DO)
    path.write_bytes(dump_hashed_json({"loss": float("inf")}))
    assert read_json(path, DO) == {"loss": float("inf")}


@pytest.mark.parametrize("indent", [None, 2])
def test_no_flipped_bit_of_a_hashed_object_gives_other_content(indent: int | None, tmp_path: Path) -> None:
    path, content = tmp_path / "a.json", {"round": 3, "loss": 0.25, "sites": {"site-1": [1, None, True]}, "text": "é"}
    path.write_bytes(whole := dump_hashed_json(content, indent))
    assert read_json(path, DO, hashed=True) == content
    for at in range(len(whole)):
        for bit in range(8):
            path.write_bytes(whole[:at] + bytes([whole[at] ^ 1 << bit]) + whole[at + 1 :])
            try:
                assert read_json(path, DO, hashed=True) == content
            except UnreadableFile as error:
                assert str(path) in str(error)  # noqa: PT017


def test_a_hash_is_asked_for_where_a_run_goes_on_from_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"round": 3}))
    assert read_json(path, DO) == {"round": 3}
    with pytest.raises(UnreadableFile, match="was changed or damaged"):
        read_json(path, DO, hashed=True)
    path.write_text(json.dumps({"round": 3, HASH: "0" * 64}))
    with pytest.raises(UnreadableFile, match="was changed or damaged"):
        read_json(path, DO)


@pytest.mark.parametrize(
    ("written", "whose"), [(2, "got 2: another version"), (None, "got none: a version before 0.2.0")]
)
def test_what_another_version_wrote_is_refused_in_a_sentence(written: int | None, whose: str, tmp_path: Path) -> None:
    path, content = tmp_path / "a.json", {"round": 3}
    path.write_bytes(dump_hashed_json(content))
    assert read_json(path, DO) == content
    said = content if written is None else {**content, FORMAT_VERSION: written}
    path.write_text(json.dumps({**said, HASH: json_sha256(said)}))
    with pytest.raises(UnreadableFile, match=f"^expected format 1 in .*a.json, {whose}"):
        read_json(path, DO)


def test_no_flipped_bit_of_a_line_gives_another_event() -> None:
    event = {"time": "2020-01-01T00:00:00+00:00", "event": "round_end", "round": 12, "loss": 0.5}
    line = dump_checked_line(event).encode()
    assert line_of(line) == event
    for at in range(len(line) - 1):
        for bit in range(8):
            found = line_of(line[:at] + bytes([line[at] ^ 1 << bit]) + line[at + 1 :])
            assert found is None or event.items() <= found.items()  # at most the name of the checksum is another
    for left in range(len(line) - 2):
        assert line_of(line[:left]) is None


def test_a_line_without_a_checksum_is_taken() -> None:
    assert line_of(b'{"event": "run_end"}\n') == {"event": "run_end"}
    assert [line_of(raw) for raw in (b"17", b"[]", b"null", b"\xff", b"[" * 100_000, b"")] == [None] * 6


def test_columns_that_must_be_numbers_are(tmp_path: Path) -> None:
    table = pd.DataFrame({"any": [0.0, float("nan"), 1.0], "word": ["1", "x", "0"], "far": [1.0, float("inf"), 0.0]})
    assert numbers(table, ["any"], tmp_path) is table
    for name in ("word", "far"):
        with pytest.raises(UnreadableFile, match=f"numbers in column {name}"):
            numbers(table, [name], tmp_path / "index.csv")
