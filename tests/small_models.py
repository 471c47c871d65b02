"""Overrides that make each model one of seconds."""

# Narrow networks at 32 px on few crystals: seconds, not quality.
SMALL = {
    "gan": ["model.generator.width=8", "model.discriminator.width=8"],
    "wgan": ["model.generator.width=8", "model.critic.width=8", "model.critic_steps=2"],
    "diffusion": ["model.unets.0.dim=8", "model.unets.1.dim=8", "model.sampling_steps=2"],
    "edm": ["pretrained=null", "model.network.width=16", "model.network.depth=1", "model.network_calls=3"],
}

# The recipe of orbits as a network of few weights that is trained for an epoch, on data that a test names.
SMALL_ORBITS = [
    "experiment=mp_52_orbits",
    "model.network.width=16",
    "model.network.depth=1",
    "model.network.heads=2",
    "model.network_calls=3",
    "trainer.max_epochs=1",
    "trainer.accelerator=cpu",
    "callbacks.progress_bar=null",
    "callbacks.sample_statistics=null",
    "threads=1",
    "num_samples=0",
]
