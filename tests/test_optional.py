"""Libraries that only some runs need: each import of one says, where it fails, what to install."""

import ast
import configparser
import json
import re
import sys
from pathlib import Path

import pytest

from semanticfl_jax.errors import MissingDependencyError, SemanticFLError
from semanticfl_jax.optional import optional_imports
from tests.launch.test_commands import command, output

ROOT = Path(__file__).parents[1]
#: What is imported from the libraries of each extra.
MODULES = {
    "plan": {"libtpu"},
    "diffusion": {"diffusers", "transformers", "tokenizers", "huggingface_hub"},
    "tfds": {"tensorflow_datasets", "array_record"},
    "privacy": {"dp_accounting", "jax_privacy"},
    "parquet": {"pyarrow"},
    "tensorboard": {"tensorboardX"},
    "wandb": {"wandb"},
    "mlflow": {"mlflow"},
    "prepare": {"tensorflow", "importlib_resources", "tensorflow_datasets", "array_record"},
}


def test_the_message_is_one_line_that_names_the_extra():
    with pytest.raises(MissingDependencyError) as caught, optional_imports("tfds", "a data set"):
        raise ModuleNotFoundError("No module named 'tensorflow_datasets'\nmore")
    assert str(caught.value) == (
        "a data set needs more libraries (No module named 'tensorflow_datasets'): "
        "pip install 'semanticfl-jax[tfds]'"
    )
    assert isinstance(caught.value, SemanticFLError) and isinstance(caught.value, ImportError)


def test_other_errors_pass():
    with pytest.raises(KeyError), optional_imports("tfds", "a data set"):
        raise KeyError("x")


def test_extras_bring_what_is_imported():
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    extras = setup["options.extras_require"]

    def brought(extra):
        names = set()
        for line in extras[extra].split("\n"):
            nested = re.match(r"semanticfl-jax\[(.*)\]", line)
            if nested:
                names |= set().union(*map(brought, nested[1].split(",")))
            elif line and not line.startswith("#"):
                name = re.match(r"[\w-]+", line)[0].replace("-", "_")
                names.add({"mlflow_skinny": "mlflow"}.get(name, name))
        return names

    for extra, modules in MODULES.items():
        assert brought(extra) == modules
    assert brought("all") == MODULES["diffusion"] | MODULES["tfds"] | MODULES["privacy"]


def imports(tree, extra=None):
    """(line, top-level module, extra of the `optional_imports` around it or None)."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, name.name.partition(".")[0], extra) for name in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield node.lineno, node.module.partition(".")[0], extra
        inner = extra
        if isinstance(node, ast.With):
            call = node.items[0].context_expr
            if isinstance(call, ast.Call) and ast.unparse(call.func) == "optional_imports":
                inner = call.args[0].value
        yield from imports(node, inner)


def test_no_import_of_them_goes_without_the_message():
    optional, seen = set().union(*MODULES.values()), set()
    for folder in ("semanticfl_jax", "launch"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            for line, module, extra in imports(ast.parse(path.read_text())):
                if module in optional:
                    seen.add(module)
                    assert module in MODULES.get(extra, ()), f"{path}:{line} imports {module}"
    assert {"diffusers", "transformers", "tokenizers", "tensorflow_datasets"} <= seen


@pytest.fixture
def blocked(monkeypatch):
    """Makes imports of the libraries of all extras fail."""
    for module in set().union(*MODULES.values()):
        monkeypatch.setitem(sys.modules, module, None)


def load_checkpoint(tmp_path):
    from semanticfl_jax.diffusion import stable_diffusion

    stable_diffusion.load("tiny-sd")


def download_checkpoint(tmp_path):
    from semanticfl_jax.diffusion.fingerprint import resolve_checkpoint

    resolve_checkpoint("owner/name")


def train_tokenizer(tmp_path):
    from semanticfl_jax.pretraining import tokenizer

    tokenizer.write(tmp_path, ["a cat"], 600, 8)


def build_autoencoder(tmp_path):
    from semanticfl_jax.pretraining import vae
    from semanticfl_jax.pretraining.config import VaeConfig

    vae.build(VaeConfig(), 32)


def read_prepared(tmp_path):
    from semanticfl_jax.data.sources import load_dataset

    directory = tmp_path / "cifar10" / "3.0.2"
    directory.mkdir(parents=True)
    (directory / "dataset_info.json").write_text(json.dumps({"fileFormat": "array_record"}))
    load_dataset("cifar10", str(tmp_path))


def account(tmp_path):
    from semanticfl_jax.config import ExperimentConfig, ModelConfig, PrivacyConfig
    from semanticfl_jax.privacy.accounting import make_ledger

    model, private = ModelConfig(norm="group"), PrivacyConfig("central", noise_multiplier=1.0)
    make_ledger(ExperimentConfig(model=model, privacy=private))


def log_to(name):
    def build(tmp_path):
        import semanticfl_jax as sfl
        from semanticfl_jax.simulation.loggers import make_loggers

        config = sfl.ExperimentConfig(runtime=sfl.RuntimeConfig(loggers=(name,)))
        make_loggers(config, tmp_path)

    return build


def read_parquet(tmp_path):
    from semanticfl_jax.data.sources import load_dataset

    for split in ("train", "test"):
        (tmp_path / f"{split}-00000-of-00001.parquet").write_bytes(b"")
    load_dataset("cifar10", str(tmp_path))


@pytest.mark.parametrize(
    ("use", "extra"),
    [
        (log_to("tensorboard"), "tensorboard"),
        (log_to("wandb"), "wandb"),
        (log_to("mlflow"), "mlflow"),
        (load_checkpoint, "diffusion"),
        (download_checkpoint, "diffusion"),
        (train_tokenizer, "diffusion"),
        (build_autoencoder, "diffusion"),
        (read_prepared, "tfds"),
        (account, "privacy"),
        (read_parquet, "parquet"),
    ],
)
def test_what_needs_them_says_so(tmp_path, monkeypatch, blocked, use, extra):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with pytest.raises(MissingDependencyError) as caught:
        use(tmp_path)
    assert str(caught.value).endswith(f": pip install 'semanticfl-jax[{extra}]'")


WITHOUT = """
import runpy, sys
sys.modules.update(dict.fromkeys(["diffusers", "transformers", "tokenizers", "huggingface_hub"]))
runpy.run_module("launch.extract_anchors", run_name="__main__", alter_sys=True)
"""


def test_a_command_ends_with_that_line(tmp_path):
    (tmp_path / "without.py").write_text(WITHOUT)
    code, text = output(command("without", "--config=digits", "--workdir=run", cwd=tmp_path))
    assert code == 2
    assert "Traceback" not in text
    assert text.splitlines()[-1].startswith("error: a diffusion checkpoint needs more libraries")
    assert text.endswith("pip install 'semanticfl-jax[diffusion]'\n")
