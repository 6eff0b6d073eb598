r"""Makes the student of an experiment, without training clients.

    python -m launch.distill_student --config=launch/configs/cifar10_cpu.py --workdir=DIR \
        --config.data_dir=DIR --config.guidance.student.images=dataset:tiny_imagenet \
        --config.guidance.student.data_dir=tiny-imagenet-200.zip [--config.FIELD=VALUE ...]

The diffusion model of `guidance.checkpoint` looks at images that are not the clients', and a small
network learns what it sees. Writes DIR/student.safetensors and DIR/student.json, for use with
--config.guidance.student.file=DIR/student.safetensors; with --config.guidance.student.directory=DIR
runs find students there by their inputs, and make those that are missing. Run again, an
interrupted command resumes. --config.guidance.student.control=random_unet, labels or encoder makes
the students of these controls.
"""

from pathlib import Path

from absl import flags as absl_flags

from semanticfl_jax.config import ConfigError, ExperimentConfig

from . import flags

#: That a student is probed on, at most.
_TEST_IMAGES = 2000


def define() -> None:
    """Define the flags beyond those that every command has."""
    absl_flags.DEFINE_integer(
        "probe_images",
        0,
        "Training images of `dataset` that classifiers of what the student sees are fitted to; "
        "their accuracy on 2,000 test images goes to student.json. A measurement only. 0: none.",
        lower_bound=0,
    )


def main(config: ExperimentConfig, workdir: str) -> None:
    """Distil what is not yet distilled, and say what is known of it."""
    from semanticfl_jax.data import sources
    from semanticfl_jax.data.federation import make_federation
    from semanticfl_jax.files import write_json
    from semanticfl_jax.lock import Lock
    from semanticfl_jax.simulation.student import check_probe, probe_on, server_student

    if config.guidance.student.is_bundled:
        raise ConfigError(
            "guidance.student.images must be public, directory, generated or dataset:NAME: "
            "what the student is distilled on"
        )
    directory, count = Path(workdir), absl_flags.FLAGS.probe_images
    with Lock(directory):
        federation = make_federation(sources.from_config(config), config)
        if count:
            check_probe(federation.dataset, count, _TEST_IMAGES)
        student = server_student(federation, config, directory, print)
        about = student.about
        if count:
            figures = probe_on(student, federation.dataset, count, _TEST_IMAGES)
            print(", ".join(f"{name} {value:.3f}" for name, value in figures.items()))
            about = {**about, "measured": {**about["measured"], **figures}}
        write_json(directory / "student.json", about)


if __name__ == "__main__":
    flags.run(
        main,
        ExperimentConfig,
        default="cifar10_cpu",
        define=define,
        force={"guidance.enabled": True, "guidance.student.enabled": True},
    )
