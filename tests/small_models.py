"""Overrides that make each model one of seconds."""

# Narrow networks at 32 px on few crystals: seconds, not quality.
SMALL = {
    "gan": ["model.generator.width=8", "model.discriminator.width=8"],
    "wgan": ["model.generator.width=8", "model.critic.width=8", "model.critic_steps=2"],
    "diffusion": ["model.unets.0.dim=8", "model.unets.1.dim=8", "model.sampling_steps=2"],
    "edm": ["model.network.width=16", "model.network.depth=1", "model.network_calls=3"],
}
