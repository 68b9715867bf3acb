"""The `adaptkit` command: its group, and what happens when something goes wrong."""

import sys
import traceback
import warnings
from collections.abc import Sequence
from typing import Any, NoReturn

import click

import adaptkit
from adaptkit.errors import AdaptkitError

from .compare import compare
from .compress import compress
from .evaluate import evaluate
from .options import debug_option, example
from .output import INTERRUPTED, print_error, problems_of
from .profile import profile
from .recipes import recipes
from .techniques import techniques
from .validate import validate

BUG = 1
USER_ERROR = 2


class Adaptkit(click.Group):
    """A click group that turns every error into one short message and an exit code."""

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> NoReturn:
        """Run a command and exit: 0 done, 1 a bug of ours, 2 wrong input, 3 a gate failed, 130 interrupted."""
        del standalone_mode
        given = list(sys.argv[1:] if args is None else args)
        debug = "--debug" in given
        with warnings.catch_warnings():
            if not debug:
                # What libraries warn their developers of is nothing a user of the command can act on.
                warnings.simplefilter("ignore")
            sys.exit(self._run(given, debug, prog_name=prog_name or "adaptkit", complete_var=complete_var, **extra))

    def _run(self, args: list[str], debug: bool, **settings: Any) -> int:
        as_json = "--json" in args
        try:
            return int(super().main(args, standalone_mode=False, **settings) or 0)
        except click.UsageError as error:
            if as_json:
                print_error(error.format_message(), USER_ERROR, as_json=True)
            else:
                error.show()
            return USER_ERROR
        except click.Abort:
            print_error("Interrupted.", INTERRUPTED, as_json=as_json)
            return INTERRUPTED
        except AdaptkitError as error:
            _show_traceback(debug)
            print_error(str(error), error.exit_code, as_json=as_json, problems=problems_of(error))
            return error.exit_code
        except Exception as error:
            _show_traceback(debug)
            print_error(_bug_message(error, debug), BUG, as_json=as_json)
            return BUG


def _show_traceback(debug: bool) -> None:
    if debug:
        click.echo(traceback.format_exc(), err=True, nl=False)


def _bug_message(error: Exception, debug: bool) -> str:
    how = "with the lines above" if debug else "with what the same command prints with --debug"
    return f"this is a bug of adaptkit, please report it {how}: {type(error).__name__}: {error}"


@click.group(
    cls=Adaptkit,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog=example("adaptkit compress digits-edge"),
)
@debug_option
@click.version_option(adaptkit.__version__, prog_name="adaptkit")
def main() -> None:
    """Make a trained PyTorch model small, fast and frugal enough for an edge server, and prove it."""


for command in (compress, validate, recipes, techniques, profile, evaluate, compare):
    main.add_command(command)
