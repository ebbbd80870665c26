"""Pages that are made when the site is built, from what is in the repository.

    methods/       one page per module of dali_cutmix/mixing/methods that begins with a card, and
                   the gallery in methods/index.md
    commands/      one page per command of dali-cutmix, from its parser
    examples/      one page per script in examples/
    results/       the JSON files and plots of benchmarks/results
    changelog.md   CHANGELOG.md

Links to those files are written as they work in a checkout (`../benchmarks/results/cpu/x.json`,
`../examples/x.py`, `../dali_cutmix/mixing/methods/x.py`); here they become links to the pages.
"""

from __future__ import annotations

import argparse
import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import dali_cutmix
from dali_cutmix.cli.main import build_parser

ROOT = Path(__file__).parent.parent
METHODS = ROOT / "dali_cutmix" / "mixing" / "methods"
PICTURES = ROOT / "docs" / "pictures" / "methods"
_INDENT = 10  # columns before the text of a card


class Card(NamedTuple):
    """What the docstring of a method's module says.

    Fields:
        name: of the class.
        module: its name, without the package.
        summary: the first sentence.
        entries: (key, text), such as ``("Rule", "…")``.
    """

    name: str
    module: str
    summary: str
    entries: list[tuple[str, str]]

    @property
    def picture(self) -> str | None:
        """The path of its picture in docs/, if there is one."""
        names = {path.stem.lower(): path.name for path in PICTURES.glob("*.jpg")}
        found = names.get(self.name.lower()) or names.get(self.module.lower())
        return None if found is None else f"pictures/methods/{found}"


# What mkdocs calls


def on_config(config: Any) -> Any:
    """Adds the pages to the navigation, also those of docs/ that mkdocs.yml does not name."""
    named = {*_paths(config.nav)}
    unnamed = [path.name for path in sorted((ROOT / "docs").glob("*.md")) if path.name not in named]
    for section in config.nav:
        if "Guide" in section:
            section["Guide"] += unnamed
        if "Methods" in section:
            section["Methods"] += [{card.name: _method_page(card)} for card in cards()]
        if "Reference" in section:
            for part in section["Reference"]:
                if isinstance(part, dict) and "Commands" in part:
                    part["Commands"] += [
                        {f"dali-cutmix {name}": _command_page(name)} for name, _ in commands()
                    ]
        if "Tasks" in section:
            section["Tasks"].append(
                {"Examples": [f"examples/{path.stem}.md" for path in _examples()]}
            )
    return config


def _paths(nav: Any) -> Iterator[str]:
    """Yields the pages of a navigation."""
    if isinstance(nav, str):
        yield nav
    else:
        for part in nav.values() if isinstance(nav, dict) else nav:
            yield from _paths(part)


def on_files(files: Any, config: Any) -> Any:
    """Adds the pages to the files of the site."""
    from mkdocs.structure.files import File  # what else is here needs no mkdocs

    for path, text in pages().items():
        files.append(File.generated(config, path, content=text))
    for path in (ROOT / "benchmarks" / "results").rglob("*.*"):
        name = path.relative_to(ROOT / "benchmarks").as_posix()
        files.append(File.generated(config, name, abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:  # noqa: ARG001
    """Turns links into the checkout into links to the pages made of it."""
    up = "../" * page.file.src_uri.count("/")
    return links_to_pages(markdown.replace("<!-- gallery -->", _gallery()), up)


def links_to_pages(markdown: str, up: str = "") -> str:
    """Returns the text with its links into the checkout changed; `up` leads to docs/."""
    markdown = re.sub(r"\]\((?:\.\./)+benchmarks/(results/[^)]*)\)", rf"]({up}\1)", markdown)
    markdown = re.sub(r"\]\((?:\.\./)+examples/(\w+)\.py\)", rf"]({up}examples/\1.md)", markdown)
    return re.sub(
        r"\]\((?:\.\./)+dali_cutmix/mixing/methods/(\w+)\.py\)", rf"]({up}methods/\1.md)", markdown
    )


def pages() -> dict[str, str]:
    """Returns the text of every page that is made, by its path in docs/."""
    made = {"commands/index.md": _command_index()}
    made |= {_method_page(card): _method(card) for card in cards()}
    made |= {_command_page(name): _command(name, parser) for name, parser in commands()}
    made |= {f"examples/{path.stem}.md": _example(path) for path in _examples()}
    made["changelog.md"] = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    return made


# Methods


def cards() -> list[Card]:
    """Returns the cards of all methods: CutMix, MixUp, and the others by their names."""
    found = [card for path in METHODS.glob("*.py") if (card := _card(path)) is not None]
    return sorted(found, key=lambda card: (card.name not in ("CutMix", "MixUp"), card.name))


def _card(path: Path) -> Card | None:
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    head, _, rest = docstring.partition("\n\n")
    name, colon, summary = " ".join(head.split()).partition(": ")
    entries: list[tuple[str, str]] = []
    for line in rest.splitlines():
        key, text = line[:_INDENT].strip(), line[_INDENT:].strip()
        if key:
            entries.append((key, text))
        elif text and entries:
            entries[-1] = entries[-1][0], f"{entries[-1][1]} {text}"
    if not colon or "Rule" not in dict(entries):
        return None  # a module that methods share
    return Card(name, path.stem, summary[0].upper() + summary[1:], entries)


def _method_page(card: Card) -> str:
    return f"methods/{card.module}.md"


def _gallery() -> str:
    parts = []
    for card in cards():
        picture = f'<img src="../{card.picture}" alt="{card.name}" loading="lazy">'
        if card.picture is None:
            picture = f'<span class="nothing">{card.name}</span>'
        text = f"<p><strong>{card.name}</strong><br>{card.summary}</p>"
        parts.append(f'<a href="{card.module}.html">{picture}{text}</a>')
    return '<div class="cards">\n' + "\n".join(parts) + "\n</div>"


def _method(card: Card) -> str:
    parts = [f"# {card.name}", card.summary]
    if card.picture is not None:
        parts.append(f"![Images mixed by {card.name}](../{card.picture})")
        parts.append(f"*Made by `{picture_command(card.name)}`.*")
    rows = (f"<dt>{key}</dt>\n<dd>{_html(text)}</dd>" for key, text in card.entries)
    parts.append('<dl class="card">\n' + "\n".join(rows) + "\n</dl>")
    if card.name in dali_cutmix.__all__:
        code = f"cfg = dcm.MixConfig(methods=(dcm.{card.name}(),))"
        parts.append(f"```python\n{code}\n```")
    parts.append(f"::: dali_cutmix.mixing.methods.{card.module}.{card.name}")
    parts[-1] += "\n    options: {members: false}"
    return "\n\n".join(parts) + "\n"


def _html(text: str) -> str:
    text = text.replace("&", "&amp;").replace("<", "&lt;")
    return re.sub(r"``(.+?)``|`(.+?)`", lambda m: f"<code>{m[1] or m[2]}</code>", text)


def picture_command(name: str) -> str:
    """Returns the command that makes the picture of a method."""
    options = {
        "DetectionCutMix": f"--annotations --method {name}",
        "ObjectCutMix": f"--masks --method {name}",
        "MixUp": "--cutmix-alpha 0 --mixup-alpha 1",  # at 0.2 most images look unmixed
    }
    return (
        f"dali-cutmix show {options.get(name, f'--method {name}')} --size 160 --images 8 --seed 3 "
        f"--out docs/pictures/methods/{name}.jpg"
    )


# Commands


def commands() -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """Yields the name and the parser of each command."""
    yield from _inside(build_parser()).items()


def _inside(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """Returns the commands inside one, by their names."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            return dict(action.choices)
    return {}


def _command_index() -> str:
    rows = [
        f"| [`dali-cutmix {name}`](dali-cutmix-{name}.md) | {_sentence(parser.description or '')} |"
        for name, parser in commands()
    ]
    return "\n".join(["# Commands", "", "| command | what it does |", "| --- | --- |", *rows, ""])


def _command_page(name: str) -> str:
    return f"commands/dali-cutmix-{name}.md"  # one is called index


def _command(name: str, parser: argparse.ArgumentParser) -> str:
    title = f"# dali-cutmix {name}"
    return title + "\n\n" + "\n\n".join(_about_parser(parser, 2)) + "\n"


def _about_parser(parser: argparse.ArgumentParser, level: int) -> Iterator[str]:
    yield _sentence(parser.description or "") + "."
    inside = _inside(parser)
    for name, command in inside.items():
        yield f"{'#' * level} {name}"
        yield from _about_parser(command, level + 1)
    if inside:
        return
    yield f"```text\n{parser.format_usage().strip()}\n```"
    for group in parser._action_groups:
        actions = [a for a in group._group_actions if a.help != argparse.SUPPRESS]
        actions = [a for a in actions if not isinstance(a, argparse._HelpAction)]
        if not actions:
            continue
        rows = [f"| {_invocation(a)} | {_help(a, parser)} |" for a in actions]
        yield "\n".join([f"| {group.title} | |", "| --- | --- |", *rows])


def _invocation(action: argparse.Action) -> str:
    choices = "{" + ",".join(map(str, action.choices)) + "}" if action.choices else ""
    value = action.metavar or choices
    value = " ".join(value) if isinstance(value, tuple) else value
    if not action.option_strings:
        return f"`{value or action.dest}`"
    shown = "" if action.nargs == 0 else f" {value}"
    return ", ".join(f"`{option}{shown}`" for option in action.option_strings)


def _help(action: argparse.Action, parser: argparse.ArgumentParser) -> str:
    text = (action.help or "") % {**vars(action), "prog": parser.prog}
    return _sentence(text).replace("|", "\\|")


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


# Examples


def _examples() -> list[Path]:
    return sorted((ROOT / "examples").glob("*.py"))


def _example(path: Path) -> str:
    text = path.read_text(encoding="utf-8")
    tree = ast.parse(text)
    code = "\n".join(text.splitlines()[tree.body[0].end_lineno :]).strip()
    return f"# {path.name}\n\n{ast.get_docstring(tree)}\n\n```python\n{code}\n```\n"
