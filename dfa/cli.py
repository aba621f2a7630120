"""The command line: it parses and prints errors. What each command does is in `commands/`."""

from __future__ import annotations

import argparse
import os
import sys

from .commands import bench, captures, export, fit, origin, score, speak, track, weights
from .media import InputError

COMMANDS = (track, fit, speak, score, export, bench, origin, captures, weights)
EXTRAS = {  # pip install 'dfa[EXTRA]' -> packages that it brings
    "notebooks": "great_tables ipywidgets IPython krippendorff matplotlib pypdf",
    "studio": "anny espeakng_loader onnxruntime pypinyin pyvista vtkmodules warp",
    "study": "voila",
    "syncnet": "python_speech_features",
}


class Help(argparse.ArgumentDefaultsHelpFormatter):
    """Adds the default value to the help text of each option that has one."""

    def _get_help_string(self, action: argparse.Action) -> str:
        return action.help if action.default is None else super()._get_help_string(action)


def parser() -> argparse.ArgumentParser:
    """The parser of all commands."""
    top = argparse.ArgumentParser(
        "dfa", description="DFA-NeRF: talking heads from a video with a voice."
    )
    sub = top.add_subparsers(required=True, metavar="COMMAND")
    for command in COMMANDS:
        name = command.__name__.rpartition(".")[2]
        p = sub.add_parser(name, help=command.TEXT, description=command.TEXT, formatter_class=Help)
        p.set_defaults(run=command.run)
        command.arguments(p)
    return top


def main(argv: list[str] | None = None) -> int:
    """Run a command and return the exit code: 0; 2 for an error that the user can correct; 130 if
    stopped."""
    os.environ.setdefault("GLOG_minloglevel", "2")
    args = parser().parse_args(argv)
    try:
        args.run(args)
    except InputError as e:
        print(f"dfa: {' '.join(str(e).split())}", file=sys.stderr)
        return 2
    except ModuleNotFoundError as e:
        package = (e.name or str(e)).partition(".")[0]
        if package == "dfa":
            raise
        extra = next((x for x, packages in EXTRAS.items() if package in packages.split()), None)
        what = f"'dfa[{extra}]'" if extra else "."
        print(f"dfa: this needs the package {package}: pip install {what}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # `dfa origin … | head`: nobody reads any more
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as e:
        if e.errno in (28, 122):  # no space, quota
            print(f"dfa: the disk is full ({e.filename}): free space, run again", file=sys.stderr)
            return 2
        raise
    except KeyboardInterrupt:
        print("dfa: stopped; run the same command to continue", file=sys.stderr)
        return 130
    return 0
