"""What a newcomer does first, in a new virtual environment with Python alone.

    python tests/front_door.py              # make front-door
    python tests/front_door.py --make       # then also `make demo` and `make check`, in a copy

Runs the README's install line against this checkout, its two snippets as they are, and its
commands, in an empty folder. `imagenet/train` and `imagenet/val` are there crops of the shipped
photographs; `model` of the first snippet is a linear layer. Prints what it runs, and how long each
takes.
"""

from __future__ import annotations

import argparse
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
DATA = """
import os, shutil
from dali_cutmix.cli.demo import photo_folder
with photo_folder(crops_a_class=60) as root:
    for part in ("train", "val"):
        shutil.copytree(root, os.path.join("imagenet", part))
"""
MODEL = """
import torch
model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.LazyLinear(5))
if torch.cuda.is_available():
    model.cuda()
"""


def blocks(language: str) -> list[str]:
    """Returns the README's blocks of code in a language."""
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def run(command: list[str], folder: Path, title: str = "") -> None:
    """Runs a command; ends everything where it fails."""
    shown = title or shlex.join(command)
    print(f"$ {shown}", flush=True)
    start = time.perf_counter()
    done = subprocess.run(command, cwd=folder, stdin=subprocess.DEVNULL)
    print(f"  {time.perf_counter() - start:.0f} s", flush=True)
    if done.returncode:
        raise SystemExit(f"failed with {done.returncode}: {shown}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--make", action="store_true", help="also make demo and make check")
    args = parser.parse_args()
    first, second = blocks("python")
    (console,) = blocks("console")
    with tempfile.TemporaryDirectory(prefix="dali-cutmix-front-door-") as name:
        folder = Path(name)
        venv.create(folder / "venv", with_pip=True)
        programs = folder / "venv" / "bin"
        work = folder / "work"
        work.mkdir()
        for line in console.splitlines():
            program, *words = shlex.split(line)
            inside = ROOT if program == "pip" else work
            quiet = ["--quiet", "--disable-pip-version-check"] if program == "pip" else []
            run([str(programs / program), *words, *quiet], inside, line)
        assert (work / "mixed.png").is_file()
        python = str(programs / "python")
        run([python, "-c", DATA], work, "make imagenet/train and imagenet/val of photographs")
        (work / "first.py").write_text(MODEL + first + "assert accuracy >= 0 and loss > 0\n")
        (work / "second.py").write_text(
            second + "assert images.shape == (256, 3, 224, 224) and targets.shape == (256, 1000)\n"
        )
        run([python, "first.py"], work, "the README's first snippet")
        run([python, "second.py"], work, "the README's second snippet")
        if args.make:
            ignored = shutil.ignore_patterns(
                ".git", ".venv", "build", "dist", "__pycache__", ".*_cache"
            )
            copy = shutil.copytree(ROOT, folder / "copy", symlinks=True, ignore=ignored)
            run(["make", "demo", f"PYTHON={sys.executable}"], copy)
            run(["make", "check", f"PYTHON={sys.executable}"], copy)


if __name__ == "__main__":
    main()
