"""How often it is guessed wrong which end of a chest film is white, where its tag would have said it.

An earlier system looked at the share of black pixels: a film as it should be has air and collimation around it, which are
black; its negative has little black, so a film with little black was turned over. Here that guess is put to synthetic
films, simple ones: a body of ellipses (lean or stout), the film's field (air beside the body, the body fills it, framed by
a black or by an unexposed, white border), three windows, and both tags. The cut-off between little and much black is the
best one there is for these very films, found in hindsight, which no real system has. The way by tag is the package's own.

    python studies/guess_inversion.py [--films 20] [--side 160] [--seed 2021]
"""

import argparse
import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from fl_rsna.imaging.dicom.lut import Function, Window
from fl_rsna.imaging.dicom.radiograph import WHITE, Presentation, to_grey16

BITS, MOST = 12, 4095
BLACK = 0.1  # of white
HABITS = {"lean": 0.34, "stout": 0.5}  # half the width of the body, of the film's side
FIELDS = ("air around", "body fills it", "black border", "white border")
WINDOWS = {
    "full range": Window(center=2048, width=4096, function=Function.LINEAR),
    "narrow": Window(center=2000, width=1800, function=Function.LINEAR),
    "none stated": None,
}
TAGS = {"MONOCHROME2": False, "MONOCHROME1": True}


@dataclass(frozen=True, slots=True, kw_only=True)
class Film:
    """`dense` [S, S] is 0 where rays pass to 4095 where none do; `stored` is that, or its negative under MONOCHROME1."""

    kind: str
    tag: str
    window: Window | None
    dense: NDArray[np.uint16]
    stored: NDArray[np.uint16]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--films", type=int, default=20, help="of each kind, tag and window")
    parser.add_argument("--side", type=int, default=160, help="pixels")
    parser.add_argument("--seed", type=int, default=2021)
    arguments = parser.parse_args()
    print(
        f"seed {arguments.seed}, {arguments.films} films of each kind, tag and window, {arguments.side} pixels a side"
    )
    films = list(drawn(arguments.films, arguments.side, arguments.seed))
    black = np.array([share_of_black(film) for film in films])
    negative = np.array([TAGS[film.tag] for film in films])
    cut = best_cut(black, negative)
    guessed = (black < cut) != negative
    by_tag = np.array([is_wrong_by_tag(film) for film in films])
    rows = table(films, guessed, by_tag)
    print(f"a film with less than {cut:.1%} black is turned over: the best cut-off for these films")
    print(f"{'kind of film':<22}{'MONOCHROME2 wrong':>20}{'MONOCHROME1 wrong':>20}{'by tag wrong':>15}")
    for kind, row in rows.items():
        print(
            f"{kind:<22}" + "".join(f"{row[tag][0]:>13} of {row[tag][1]}" for tag in TAGS) + f"{row['by tag'][0]:>12}"
        )
    total = {"films": len(films), "guess_wrong": int(guessed.sum()), "tag_wrong": int(by_tag.sum())}
    print(
        f"all: {total['guess_wrong']} of {total['films']} guessed wrong ({guessed.mean():.1%}), {total['tag_wrong']} by tag"
    )
    print(json.dumps({"seed": arguments.seed, "cut": round(cut, 4), **total, "kinds": rows}))


def drawn(count: int, side: int, seed: int) -> Iterator[Film]:
    """Every kind, tag and window, `count` bodies each; a body is drawn for itself."""
    combinations = product(HABITS, FIELDS, TAGS, WINDOWS, range(count))
    for number, (habit, field, tag, window, _) in enumerate(combinations):
        dense = draw(np.random.default_rng([seed, number]), side, habit, field)
        stored = (MOST - dense if TAGS[tag] else dense).astype(np.uint16)
        yield Film(kind=f"{habit}, {field}", tag=tag, window=WINDOWS[window], dense=dense, stored=stored)


def draw(rng: np.random.Generator, side: int, habit: str, field: str) -> NDArray[np.uint16]:
    """A body with two lungs, a spine and a heart in [0, 4095], dense is high."""
    y, x = np.mgrid[0:side, 0:side] / side - 0.5
    wide = HABITS[habit] * rng.uniform(0.92, 1.08) * (1.6 if field == "body fills it" else 1)
    body = np.sqrt(np.clip(1 - (x / wide) ** 2, 0, 1)) * (y > -0.42)
    dense = body * rng.uniform(2200, 3000) * (1.15 if habit == "stout" else 1)
    for side_of_body in (-1, 1):
        lung = ((x - side_of_body * 0.45 * min(wide, 0.45)) / 0.13) ** 2 + ((y + 0.08) / 0.24) ** 2
        dense -= np.clip(1.6 - lung, 0, 1) * dense * rng.uniform(0.6, 0.8)
    dense += (np.abs(x) < 0.045) * body * 900
    dense += np.clip(1 - ((x - 0.06) / 0.13) ** 2 - ((y - 0.1) / 0.12) ** 2, 0, 1) * 900
    dense = np.clip(dense + rng.normal(0, 40, dense.shape) + 60, 0, MOST)
    frame = rng.uniform(0.06, 0.16, 4)
    inside = (y > frame[0] - 0.5) & (y < 0.5 - frame[1]) & (x > frame[2] - 0.5) & (x < 0.5 - frame[3])
    match field:
        case "black border":
            dense = np.where(inside, dense, 0)
        case "white border":
            dense = np.where(inside, dense, MOST)
    return dense.astype(np.uint16)


def shown(film: Film, inverted: bool) -> NDArray[np.float64]:
    """Grey, 0 to 1, of the stored film [S, S], turned over or not. A narrow window keeps its place in the tissue."""
    window = film.window
    if window is not None and TAGS[film.tag]:
        window = Window(center=MOST - window.center + 1, width=window.width, function=window.function)
    meaning = Presentation(value_bits=BITS, signed=False, window=window, inverted=inverted)
    return to_grey16(film.stored, meaning) / WHITE


def share_of_black(film: Film) -> float:
    """Of the film as it looks before anything is turned over."""
    return float((shown(film, inverted=False) < BLACK).mean())


def is_wrong_by_tag(film: Film) -> bool:
    """Whether what the tag makes of the stored film is darker where the body is denser."""
    grey = shown(film, inverted=TAGS[film.tag])
    return bool(np.corrcoef(grey.ravel(), film.dense.ravel())[0, 1] <= 0)


def best_cut(black: NDArray[np.float64], negative: NDArray[np.bool_]) -> float:
    """The share of black below which turning films over is wrong least often."""
    cuts = np.unique(black) + 1e-9
    wrong = [int(((black < cut) != negative).sum()) for cut in cuts]
    return float(cuts[int(np.argmin(wrong))])


def table(films: list[Film], guessed: NDArray[np.bool_], by_tag: NDArray[np.bool_]) -> dict[str, dict[str, list[int]]]:
    """By kind of film: how many are wrong, of how many, by guess under each tag and by tag."""
    rows: dict[str, dict[str, list[int]]] = {}
    for kind in dict.fromkeys(film.kind for film in films):
        here = np.array([film.kind == kind for film in films])
        row = {"by tag": [int(by_tag[here].sum()), int(here.sum())]}
        for tag in TAGS:
            mine = here & np.array([film.tag == tag for film in films])
            row[tag] = [int(guessed[mine].sum()), int(mine.sum())]
        rows[kind] = row
    return rows


if __name__ == "__main__":
    main()
