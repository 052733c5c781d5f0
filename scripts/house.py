"""How the package is built, in the figures that its design sets goals for.

    python scripts/house.py [--list]

Prints a line a figure with its goal, with --list also what stands behind it, and, last, one JSON object with the same figures. Exits 1
while a goal is missed. A participle is a word of IRREGULAR or one that ends in -ed or -ing and is none of NO_PARTICIPLES.
"""

import argparse
import ast
import json
import re
import sys
from collections import Counter, defaultdict
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1] / "fl_rsna"
WORDS = """
begun bound bought broken brought built caught chosen dealt done drawn driven fallen felt found given gone grown held hidden hung hurt kept
known laid led left lent lost made meant met overlaid paid rebuilt rewritten said seen sent shown sold spent spoken stood swept taken taught
thought thrown told torn understood undone unseen withheld won worn written
"""
IRREGULAR = frozenset(WORDS.split())
NO_PARTICIPLES = frozenset(("embed", "exceed", "feed", "need", "seed", "speed", "shed", "string", "bring", "during"))


def is_participle(word: str) -> bool:
    return word not in NO_PARTICIPLES and (word in IRREGULAR or (len(word) > 4 and word.endswith(("ed", "ing"))))


def measure(package: Path) -> dict[str, tuple[float, float, list[str]]]:
    """Each figure with its goal, the most it may be, and what stands behind it."""
    paths = sorted(path for path in package.rglob("*.py") if path.name != "__init__.py")
    names = {path: ".".join((package.name, *path.relative_to(package).with_suffix("").parts)) for path in paths}
    trees = {path: ast.parse(path.read_text()) for path in paths}
    lines = {path: len(path.read_text().splitlines()) for path in paths}
    folders = Counter(path.parent for path in paths if path.parent != package)
    functions = [
        (path, node) for path, tree in trees.items() for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)
    ]
    importers: dict[str, set[Path]] = defaultdict(set)
    for path, tree in trees.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom):
                for name in (str(node.module), *(f"{node.module}.{alias.name}" for alias in node.names)):
                    importers[name].add(path)
    lone = [
        f"{names[path]}, of {names[next(iter(importers[names[path]]))]}"
        for path in paths
        if len(importers[names[path]]) == 1 and {one.parent for one in importers[names[path]]} == {path.parent}
    ]
    participles = [
        f"{names[path]}.{node.name}" for path, node in functions if is_participle(node.name.strip("_").split("_")[0])
    ]
    loose = {
        names[path]: len(re.findall(r"dict\[str, Any\]", path.read_text()))
        for path in paths
        if path.relative_to(package).parts[0] in ("reporting", "federation")
    }
    fronts = [names[path] for path in paths if re.search(r"argparse\.ArgumentParser|hydra\.main\(", path.read_text())]
    fullest, longest = folders.most_common(3), sorted(paths, key=lambda path: -lines[path])[:3]
    return {
        "files in the fullest folder": (
            fullest[0][1],
            15,
            [f"{folder.relative_to(package)} {count}" for folder, count in fullest],
        ),
        "modules with one importer in the same folder": (len(lone), 15, lone),
        "functions whose name starts with a participle": (len(participles), 0, participles),
        "dict[str, Any] in reporting and federation": (
            sum(loose.values()),
            40,
            [f"{name} {count}" for name, count in sorted(loose.items(), key=lambda one: -one[1]) if count],
        ),
        "modules that read a command line": (len(fronts), 2, fronts),
        "lines of the longest module": (
            lines[longest[0]],
            500,
            [f"{path.relative_to(package)} {lines[path]}" for path in longest],
        ),
        "functions per 1,000 lines": (round(1000 * len(functions) / sum(lines.values()), 1), 45, []),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--list", action="store_true", help="also what stands behind each figure")
    arguments = parser.parse_args()
    figures = measure(PACKAGE)
    for name, (value, goal, behind) in figures.items():
        print(f"{name:<48} {value:>6}   goal: at most {goal}")
        if arguments.list:
            print(*(f"    {line}" for line in behind), sep="\n")
    print(json.dumps({name: value for name, (value, _, _) in figures.items()}))
    sys.exit(any(value > goal for value, goal, _ in figures.values()))


if __name__ == "__main__":
    main()
