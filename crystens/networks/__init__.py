"""Networks: plain modules that map latents and images to images and scores, without losses or training."""
