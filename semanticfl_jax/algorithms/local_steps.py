"""How far local training goes, counted in plain gradient steps.

With heavy-ball momentum rho and constant gradient g, K steps of learning rate eta move a model by
eta K_eff g, and K_eff = |a|_1 for the weights a_k that each step's gradient ends up with in the sum
(FedNova's notation). Weight decay is a part of the gradient. The momentum starts from zero.
"""

import jax
import jax.numpy as jnp


def effective_steps(
    steps: jax.Array, momentum: float, shrink: jax.Array | float | None = None
) -> jax.Array:
    """Return |a|_1 of `steps` local steps.

        K_eff = [ K - rho (1 - rho^K) / (1 - rho) ] / (1 - rho)

    Args:
      steps: int32 scalar, K; padding does not count.
      momentum: rho.
      shrink: eta mu of a proximal term, which pulls back a share of the way at every step; None:
        there is none.

    Returns:
      float32 scalar; K itself for rho = 0 and no shrinking.
    """
    if shrink is not None:
        # The way so far d and the momentum v under g = 1:  v <- rho v + 1 - shrink d,  d <- d + v;
        # without momentum FedNova's  a <- (1 - eta mu) a + 1.
        def step(_, carry):
            way, velocity = carry
            velocity = momentum * velocity + 1.0 - shrink * way
            return way + velocity, velocity

        zero = 0.0 * steps.astype(jnp.float32)
        return jax.lax.fori_loop(0, steps, step, (zero, zero))[0]
    steps = steps.astype(jnp.float32)
    if not momentum:
        return steps
    return (steps - momentum * (1.0 - momentum**steps) / (1.0 - momentum)) / (1.0 - momentum)
