"""What the parser of the argparse commands takes, and the one sentence by which it refuses the rest."""

import pytest

from fl_rsna.cli.arguments import create_parser, parse_count, parse_share


@pytest.mark.parametrize(
    ("typed", "sentence"),
    [
        (["--share", "1"], "argument --share: expected a share between 0 and 1, got 1"),
        (["--share", "nan"], "argument --share: expected a share between 0 and 1, got nan"),
        (["--share", "half"], "argument --share: expected a share between 0 and 1, got half"),
        (["--count", "-1"], "argument --count: expected"),
        (["--count", "1.5"], "argument --count: expected a whole number, 0 or more, got 1.5"),
        (["--other"], "unrecognized arguments: --other"),
    ],
)
def test_what_cannot_be_read_is_refused_in_one_sentence(typed: list[str], sentence: str) -> None:
    parser = create_parser("try", "Try.")
    parser.add_argument("--share", type=parse_share)
    parser.add_argument("--count", type=parse_count)
    with pytest.raises(ValueError, match=r"; python -m fl_rsna.try --help says what is expected$") as refused:
        parser.parse_args(typed)
    assert str(refused.value).startswith(sentence)
    assert "\n" not in str(refused.value)


def test_numbers_are_read() -> None:
    assert (parse_share("0.2"), parse_count("3")) == (0.2, 3)
