"""The command `dmkeras`: what is exported, its answers, and how it is served.

    dmkeras show saved_models[/NAME[/VERSION]]
    dmkeras predict saved_models NAME --image cat.png
    dmkeras show http://localhost:8501/NAME[/VERSION]
    dmkeras predict http://localhost:8501 NAME --signature sample --seed 1 --count 16
    dmkeras serve saved_models
    dmkeras config saved_models

Answers go to stdout as JSON, what is said about them to stderr. Exit status: 0; 1 where some pictures got no answer or
some models cannot be read; 2 for what cannot be done; 130 after an interrupt.
"""

import argparse
import os
import sys

from dmkeras import __version__
from dmkeras.serving.commands import deploy, predict, serve, show
from dmkeras.serving.commands.words import said
from dmkeras.serving.errors import ServingError
from dmkeras.serving.folders import DamagedError, UnknownNameError


def main(argv=None):
    """Runs one command line and returns its exit status."""
    args = _parser().parse_args(argv)
    try:
        status = args.command(args)
        sys.stdout.flush()
    except BrokenPipeError:  # the reader, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        return 130
    except (UnknownNameError, DamagedError, ServingError, OSError, ImportError) as error:
        print(f"dmkeras: {said(error)}", file=sys.stderr)
        return 2
    return status or 0


def _parser():
    parser = argparse.ArgumentParser(
        prog="dmkeras",
        allow_abbrev=False,
        description="Exported models: what there is, what they answer, how they are served.",
    )
    parser.add_argument("--version", action="version", version=f"dmkeras {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, module, text in (
        ("show", show, "versions, signatures, tensors and a curl line for each"),
        ("predict", predict, "ask a model, in a folder or on a server"),
        ("serve", serve, "answer over REST and gRPC as TF Serving does"),
        ("config", deploy, "write the files that TF Serving, Docker Compose and Kubernetes need"),
    ):
        described = f"{text[0].upper()}{text[1:]}."
        module.add_arguments(commands.add_parser(name, help=text, description=described, allow_abbrev=False))
    return parser


if __name__ == "__main__":
    sys.exit(main())
