"""Models: losses and optimizers around injected networks, one LightningModule each."""
