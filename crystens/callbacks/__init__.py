"""What watches a training run: losses, samples, random states, and what a checkpoint has to carry."""
