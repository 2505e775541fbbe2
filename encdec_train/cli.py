"""The command line. Light commands import neither torch nor Hydra.

Every fault of the user ends in one message and exit code 2; `--debug` shows the traceback instead.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

COMMANDS = (
    *("list", "show", "preview", "resume", "replay", "probe", "generate", "verify", "report", "export", "runs"),
    *("doctor", "train"),
)


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Run one command and exit: 0 done, 2 wrong input, 130 or 143 interrupted, 1 stopped early or our own fault."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in arguments
    arguments = [argument for argument in arguments if argument != "--debug"]
    try:
        sys.exit(_dispatch(arguments))
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
    except Exception as error:
        if debug:
            raise
        from encdec_train.errors import explain
        from encdec_train.types import Halted

        if isinstance(error, Halted):
            print(error, file=sys.stderr)
            sys.exit(error.code)
        message = explain(error)
        if message is None:
            raise
        print(message, file=sys.stderr)
        sys.exit(2)


def _dispatch(arguments: list[str]) -> int:
    from encdec_train.registry import did_you_mean

    first = arguments[0] if arguments else ""
    if first in ("-h", "--help", "help"):
        from encdec_train.catalogue import help_text

        print(help_text())
        return 0
    if first == "list":
        from encdec_train.catalogue import list_command

        return list_command(arguments[1:])
    if first in _LOADED:
        return _LOADED[first](arguments[1:])
    if first and "=" not in first and not first.startswith(("-", "+", "~")):
        print(
            f"unknown command '{first}'{did_you_mean(first, COMMANDS)}; commands: {', '.join(COMMANDS)}; "
            "without a command: encdec-train +recipe=NAME [key=value ...]",
            file=sys.stderr,
        )
        return 2
    return _train(arguments)


def _train(arguments: list[str]) -> int:
    from encdec_train.launch import launch

    os.environ["HYDRA_FULL_ERROR"] = "1"  # exceptions reach `main` as they are
    launch(arguments)
    return 0


def _show(arguments: list[str]) -> int:
    from encdec_train.show import show_command

    return show_command(arguments)


def _preview(arguments: list[str]) -> int:
    from encdec_train.preview import preview_command

    return preview_command(arguments)


def _resume(arguments: list[str]) -> int:
    from encdec_train.launch import resume_command

    return resume_command(arguments)


def _replay(arguments: list[str]) -> int:
    from encdec_train.launch import replay_command

    return replay_command(arguments)


def _probe(arguments: list[str]) -> int:
    from encdec_train.launch import probe_command

    return probe_command(arguments)


def _generate(arguments: list[str]) -> int:
    from encdec_train.generate import generate_command

    return generate_command(arguments)


def _verify(arguments: list[str]) -> int:
    from encdec_train.launch import verify_command

    return verify_command(arguments)


def _report(arguments: list[str]) -> int:
    from encdec_train.report.page import report_command

    return report_command(arguments)


def _runs(arguments: list[str]) -> int:
    from encdec_train.runs import runs_command

    return runs_command(arguments)


def _doctor(arguments: list[str]) -> int:
    from encdec_train.doctor import doctor_command

    return doctor_command(arguments)


def _export(arguments: list[str]) -> int:
    from encdec_train.handover import export_command

    return export_command(arguments)


_LOADED: dict[str, Callable[[list[str]], int]] = {
    "train": _train,
    "show": _show,
    "preview": _preview,
    "resume": _resume,
    "replay": _replay,
    "probe": _probe,
    "generate": _generate,
    "verify": _verify,
    "report": _report,
    "export": _export,
    "runs": _runs,
    "doctor": _doctor,
}

if __name__ == "__main__":
    main()
