"""How the weights of networks are changed in training: optimizer, learning rate, clipping, averages."""
