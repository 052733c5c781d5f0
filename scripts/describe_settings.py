"""Write docs/all-settings.md: every setting with its default, what it may be and what it means, as the code declares it.

python scripts/describe_settings.py
"""

from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, get_type_hints

from fl_rsna.settings.config import Config
from fl_rsna.settings.fields import KEY, Declaration
from fl_rsna.settings.reference import describe_values, write_value
from fl_rsna.settings.strategy import StrategyConfig
from fl_rsna.strategies.find import STRATEGIES

PAGE = Path(__file__).resolve().parents[1] / "docs" / "all-settings.md"
HEAD = "\n| setting | default | may be | meaning |\n|---|---|---|---|"
BEGIN = """# All settings

Written by `scripts/describe_settings.py` from the declarations in `fl_rsna/settings/` and `fl_rsna/strategies/`. [settings.md](settings.md)
says which of them to use for what. A setting with no effect in a run is refused where it was typed, and named where a file chose it.
"""


def describe_page() -> str:
    """The whole page."""
    config = Config()
    groups = [item.name for item in fields(config) if is_dataclass(getattr(config, item.name))]
    parts = [BEGIN, "## Of a run", HEAD, *_rows(config, "")]
    for group in groups:
        parts += [f"\n## {group}", HEAD, *_rows(getattr(config, group), f"{group}.")]
    parts.append("\n## Of one strategy")
    common = {item.name for item in fields(StrategyConfig)}
    ours = [of for of in STRATEGIES.items() if of[1].settings.__module__.startswith("fl_rsna.")]
    for name, strategy in ours:
        rows = list(_rows(strategy.settings(), "strategy.", without=common))
        parts.append(f"\n`strategy={name}`: {strategy.title}, {strategy.paper}." + (f"\n{HEAD}" if rows else ""))
        parts += rows
    return "\n".join(parts) + "\n"


def _rows(record: Any, path: str, without: frozenset[str] | set[str] = frozenset()) -> Iterator[str]:
    kinds = get_type_hints(type(record))
    for item in fields(record):
        if KEY not in item.metadata or item.name in without:
            continue
        declared: Declaration = item.metadata[KEY]
        cells = (
            f"`{path}{item.name}`",
            f"`{write_value(getattr(record, item.name))}`",
            _in_cell(describe_values(kinds[item.name], declared)),
        )
        yield f"| {' | '.join(cells)} | {_in_cell(declared.meaning)} |"


def _in_cell(text: str) -> str:
    return text.replace("|", "\\|")


def main() -> None:
    PAGE.write_text(describe_page())


if __name__ == "__main__":
    main()
