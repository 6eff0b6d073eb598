"""The page of the commands: what each does, and its flags, as its --help shows them."""

from __future__ import annotations

import inspect
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from docs._ext.markdown import as_markdown, escape, table
from semanticfl_jax.__main__ import commands

ROOT = Path(__file__).parents[2]


def flags_of(command: str) -> dict[str, Any]:
    """Return a command's description and flags, as its --help shows them.

    absl keeps the flags of a process in one place, so that each command gets a process.
    """
    script = f"""
import json, sys
from absl import app, flags
from semanticfl_jax.__main__ import launch_folder
launch_folder()
import runpy
found = {{}}
def listed(main, argv=None, flags_parser=None):
    given = flags.FLAGS.flags_by_module_dict()
    for module, members in given.items():
        if module.startswith(("absl", "jax", "tensorflow", "chex", "grain", "etils")):
            continue
        for flag in members:
            found[flag.name] = [flag.flag_type(), flag.default_as_str, flag.help]
app.run = listed
sys.argv = ["{command}", "--workdir=unused"]
module = runpy.run_module("semanticfl_jax.launch.{command}", run_name="__main__", alter_sys=True)
print(json.dumps({{"doc": module["__doc__"], "flags": found}}))
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False, cwd=ROOT
    )
    if done.returncode != 0:
        raise RuntimeError(f"the flags of launch.{command} cannot be listed: {done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def command_pages() -> str:
    """Return every command with its description and its own flags."""
    known = commands(ROOT / "launch")
    found = {name: flags_of(name) for name in known}
    shared = set.intersection(
        *({*found[name]["flags"]} for name in known if "config" in found[name]["flags"])
    )
    rows = [(f"[`launch.{name}`](#{slug(name)})", line.rstrip(".")) for name, line in known.items()]
    some = next(name for name in known if shared and "config" in found[name]["flags"])
    parts = [
        table(("command", "what it does"), rows),
        "## Flags of every command that takes a configuration",
        flag_table({name: found[some]["flags"][name] for name in sorted(shared)}),
    ]
    for name in known:
        _, _, rest = inspect.cleandoc(found[name]["doc"]).partition("\n\n")
        takes_config = "config" in found[name]["flags"]
        own = {
            flag: about
            for flag, about in found[name]["flags"].items()
            if not (takes_config and flag in shared)
        }
        parts += [f"({slug(name)})=\n## launch.{name}", known[name], *as_markdown(rest)]
        parts += [flag_table(own)] if own else []
    return "\n\n".join(parts)


def slug(command: str) -> str:
    """Return the target of a command's section."""
    return "launch-" + command.replace("_", "-")


def flag_table(flags: dict[str, list[Any]]) -> str:
    """Return the table of a command's flags."""
    rows = []
    for name, (_, default, about) in flags.items():
        # absl's own words about choices, and about flags that may be repeated.
        about = re.sub(r"^<([^>]*)>", lambda found: found[1].replace("|", ", "), about)
        about = re.sub(
            r"\.?;\s+repeat this option.*", ". It may be repeated.", about, flags=re.DOTALL
        )
        rows.append((f"`--{name}`", (default or "").strip("'"), escape(about)))
    return table(("flag", "default", "meaning"), rows)
