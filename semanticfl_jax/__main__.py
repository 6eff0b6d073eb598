"""`semanticfl COMMAND ...`, the same as `python -m launch.COMMAND ...` in a clone.

The commands are the modules of launch/ that can be run, which wheels hold as
`semanticfl_jax.launch`. They are listed without being imported.
"""

from __future__ import annotations

import ast
import importlib.util
import runpy
import sys
from pathlib import Path

PACKAGE = "semanticfl_jax.launch"


def launch_folder() -> Path:
    """Return the folder of the commands, and see to it that `PACKAGE` is that folder.

    A wheel has it inside this package, a clone beside it, whether that is installed or not.
    """
    here = Path(__file__).parent
    if (here / "launch").is_dir():
        return here / "launch"
    folder = here.parent / "launch"
    spec = importlib.util.spec_from_file_location(
        PACKAGE, folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[PACKAGE] = module
    spec.loader.exec_module(module)
    return folder


def commands(folder: Path) -> dict[str, str]:
    """Return the commands in `folder` with the first line of each one's description."""
    found = {}
    for path in sorted(folder.glob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        runs = any(
            isinstance(node, ast.If) and ast.unparse(node.test) == "__name__ == '__main__'"
            for node in tree.body
        )
        if runs:
            found[path.stem] = (ast.get_docstring(tree) or "").partition("\n")[0]
    return found


def usage(known: dict[str, str]) -> str:
    """Return the help text."""
    width = max(map(len, known), default=0)
    lines = [f"  {name:{width}}  {description}" for name, description in known.items()]
    return "\n".join(
        [
            "usage: semanticfl COMMAND [--FLAG=VALUE ...]",
            "",
            *lines,
            "",
            "semanticfl COMMAND --help shows a command's flags.",
        ]
    )


def main() -> None:
    """Run the command that the first argument names, with the others as its own.

    Without a command it prints the help: on request to standard output, else to standard error
    with exit status 2.
    """
    folder = launch_folder()
    command, rest = (sys.argv[1], sys.argv[2:]) if len(sys.argv) > 1 else (None, [])
    if command in ("--version", "-V"):
        from semanticfl_jax import __version__

        print(__version__)
        return
    known = commands(folder)
    if command in ("--help", "-h", "help"):
        print(usage(known))
        return
    if command not in known:
        if command is not None:
            print(f"error: {command!r} is not a command\n", file=sys.stderr)
        print(usage(known), file=sys.stderr)
        sys.exit(2)
    sys.argv = [sys.argv[0], *rest]
    # As `python -m` does: absl takes the command's description and flags from __main__.
    runpy.run_module(f"{PACKAGE}.{command}", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
