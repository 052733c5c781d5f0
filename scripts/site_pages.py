"""A hook of mkdocs (mkdocs.yml names it): every tutorial of docs/tutorials/, a script in jupytext's percent format, becomes a page of the site.

The page is the script's text and code, as it stands. tests/test_tutorials.py runs the same script.
"""

from pathlib import Path

import jupytext
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add a Markdown page beside each tutorial; the script itself stays, for download."""
    for path in sorted(Path(config.docs_dir, "tutorials").glob("*.py")):
        files.append(File.generated(config, f"tutorials/{path.stem}.md", content=render_tutorial(path)))
    return files


def render_tutorial(path: Path) -> str:
    """Turn a script of Markdown and code cells into Markdown with code blocks and a link to the script."""
    title, *rest = [_render_cell(cell) for cell in jupytext.read(path).cells]
    link = f"[Download this tutorial as a script]({path.name}); `jupytext --to notebook {path.name}` makes a notebook of it."
    return "\n\n".join([title, link, *rest]) + "\n"


def _render_cell(cell: dict[str, str]) -> str:
    return cell["source"] if cell["cell_type"] == "markdown" else f"```python\n{cell['source']}\n```"
