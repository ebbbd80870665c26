"""Makes the pictures of the documentation anew, by the commands that stand beside them.

python docs/pictures.py          # all
python docs/pictures.py NAME     # those whose command has NAME in it
"""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from dali_cutmix.cli.main import main as dali_cutmix
from docs import hooks


def commands() -> list[list[str]]:
    """Returns the arguments of each command that makes a picture in docs/pictures."""
    texts = [page.read_text(encoding="utf-8") for page in (hooks.ROOT / "docs").rglob("*.md")]
    shows = re.compile(r"`dali-cutmix ((?:volumes )?show [^`]*)`")
    lines = [line for text in texts for line in shows.findall(text)]
    of_methods = (hooks.picture_command(card.name) for card in hooks.cards())
    lines += [command.removeprefix("dali-cutmix ") for command in of_methods]
    found = dict.fromkeys(" ".join(line.split()) for line in lines if "docs/pictures" in line)
    return [shlex.split(line) for line in found]


def main() -> int:
    """Runs the commands; returns 1 where one of them fails."""
    wanted = [c for c in commands() if all(name in " ".join(c) for name in sys.argv[1:])]
    return max(dali_cutmix(command) for command in wanted)


if __name__ == "__main__":
    sys.exit(main())
