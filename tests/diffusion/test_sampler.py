import jax
import jax.numpy as jnp
import numpy as np
import pytest

from semanticfl_jax.diffusion import sampler

ALPHAS = np.cumprod(1 - np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2)


def bar(times, alphas=ALPHAS):
    return jnp.asarray(alphas, jnp.float32)[times][:, None, None, None]


def test_a_single_image_is_recovered_from_any_noise():
    clean = jax.random.normal(jax.random.key(0), (1, 2, 2, 3))

    def predict(latents, times):
        return (latents - jnp.sqrt(bar(times)) * clean) / jnp.sqrt(1 - bar(times))

    noise = jax.random.normal(jax.random.key(1), (4, 2, 2, 3))
    for steps in (1, 7):
        sample = sampler.ddim(predict, noise, ALPHAS, steps)
        assert sample.shape == noise.shape
        expected = np.broadcast_to(clean, noise.shape)
        np.testing.assert_allclose(sample, expected, rtol=2e-3, atol=2e-3)


def test_gaussian_data_follow_the_closed_form():
    variance, steps = 0.3, 5
    times = np.linspace(999, 0, steps).round().astype(int)

    def predict(latents, t):
        return jnp.sqrt(1 - bar(t)) * latents / (variance * bar(t) + 1 - bar(t))

    scale = 1.0
    for time, target in zip(times, [*ALPHAS[times[1:]], 1.0], strict=True):
        alpha = ALPHAS[time]
        slope = np.sqrt(1 - alpha) / (variance * alpha + 1 - alpha)
        clean = (1 - np.sqrt(1 - alpha) * slope) / np.sqrt(alpha)
        scale *= np.sqrt(target) * clean + np.sqrt(1 - target) * slope
    noise = jax.random.normal(jax.random.key(2), (3, 2, 2, 1))
    sample = sampler.ddim(predict, noise, ALPHAS, steps)
    np.testing.assert_allclose(sample, scale * noise, rtol=1e-3, atol=1e-5)


def test_guidance_extrapolates_from_the_null_prompt():
    def predict(latents, times, condition, offset):
        return offset + latents + condition.mean((1, 2))[:, None] + times[:, None]

    latents, times = jnp.ones((2, 3)), jnp.array([4, 5])
    condition = jnp.stack([jnp.full((2, 2), 1.0), jnp.full((2, 2), 2.0)])
    null = jnp.full((2, 2, 2), 0.5)
    guided = sampler.guided(predict, 3.0)(latents, times, condition, null, 7.0)
    wanted = 7 + 1 + np.array([[4], [5]]) + 0.5 + 3.0 * (np.array([[1.0], [2.0]]) - 0.5)
    np.testing.assert_allclose(guided, np.broadcast_to(wanted, (2, 3)))


@pytest.mark.parametrize("steps", [0, 1001])
def test_wrong_number_of_steps(steps):
    with pytest.raises(ValueError, match="steps"):
        sampler.ddim(lambda x, t: x, jnp.ones((1, 1)), ALPHAS, steps)
