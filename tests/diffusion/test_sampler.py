import jax
import jax.numpy as jnp
import numpy as np
import pytest

from semanticfl_jax.diffusion import features, sampler

ALPHAS = np.cumprod(1 - np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2)
PROMPTS = ["a cat", "a dog"]


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


def test_noise_is_recovered_from_either_prediction(model, monkeypatch):
    sd, golden = model
    latents, noise, t = golden["latents"], golden["noise"], 150
    bar = sd.alphas_cumprod[t]
    noised = np.sqrt(bar) * latents + np.sqrt(1 - bar) * noise
    velocity = np.sqrt(bar) * noise - np.sqrt(1 - bar) * latents
    perfect = {"epsilon": noise, "v_prediction": velocity}[sd.prediction_type]
    monkeypatch.setattr(type(sd), "predict", lambda self, *_: jnp.asarray(perfect))
    found = sd.predict_noise(jnp.asarray(noised), jnp.array([t, t]), golden["token_states"])
    np.testing.assert_allclose(found, noise, rtol=1e-4, atol=1e-5)


def test_images_do_not_depend_on_batches_and_differ_by_prompt_and_place(sd1, monkeypatch):
    sd, _ = sd1
    options = {"steps": 2, "seed": 3, "progress": False}
    drawn = sampler.generate(sd, PROMPTS, 2, batch_size=8, **options)
    assert drawn.shape == (2, 2, sd.image_size, sd.image_size, 3)
    monkeypatch.setattr(jax, "local_devices", lambda: jax.devices()[:1])
    other = sampler.generate(sd, PROMPTS, 2, batch_size=4, **options)
    assert np.abs(drawn.astype(int) - other).max() <= 1
    assert len({image.tobytes() for image in drawn.reshape(4, -1)}) == 4


def test_pixels_from_minus_one_to_one_are_bytes():
    pixels = np.float32([-1.2, -1, 0, 1, 1.2]).reshape(1, 1, 5, 1)
    np.testing.assert_array_equal(np.ravel(sampler._to_uint8(pixels)), [0, 0, 128, 255, 255])


@pytest.fixture
def started(sd1, monkeypatch):
    """What `generate` gives to DDIM: predictor, noise, condition and null prompt."""
    seen = []

    def ddim(predict, noise, alphas, steps, condition, null, sd):
        given = (np.asarray(x) for x in (noise, condition, null))
        seen.append((predict, *given))
        return 0 * noise

    monkeypatch.setattr(sampler, "ddim", ddim)
    sampler.generate(sd1[0], PROMPTS, 2, scale=3.0, progress=False, batch_size=8)
    return seen[0]


def test_images_come_prompt_by_prompt(sd1, started):
    _, _, condition, null = started
    states = np.asarray(sd1[0].text([*PROMPTS, ""])[0])
    np.testing.assert_allclose(condition[:4], states[[0, 0, 1, 1]], rtol=1e-6)
    np.testing.assert_allclose(null[0], states[2], rtol=1e-6)


def test_images_are_guided_as_far_as_asked(sd1, started, monkeypatch):
    predict, noise, condition, null = started

    def told(sd, latents, times, states):
        return latents + states.mean((1, 2))[:, None, None, None]

    monkeypatch.setattr(type(sd1[0]), "predict", told)
    times = np.full(len(noise), 9)
    found = predict(noise, times, condition, null, sd1[0])
    own, none = (told(None, noise, times, states) for states in (condition, null))
    np.testing.assert_allclose(found, none + 3.0 * (own - none), rtol=1e-4, atol=1e-5)


def test_generated_images_start_from_other_noise_than_their_features_are_taken_with(
    sd1, monkeypatch
):
    sd, _ = sd1
    keys = []

    class Captured(Exception):
        pass

    def capture(run, shared, *rest, **options):
        keys.append(shared[2])
        raise Captured

    for module in (sampler, features):
        monkeypatch.setattr(module, "over_batches", capture)
    with pytest.raises(Captured):
        sampler.generate(sd, ["a cat"], 2, seed=3)
    images = np.zeros((2, 16, 16, 3), np.uint8)
    with pytest.raises(Captured):
        features.extract_features(sd, images, sd.text(["a cat"])[0], np.zeros(2, int), seed=3)
    shape = (2, 2, sd.latent_channels)
    drawn, added = (sampler._noise(key, np.arange(9), shape).reshape(9, -1) for key in keys)
    assert not np.isin(drawn, added).any()
