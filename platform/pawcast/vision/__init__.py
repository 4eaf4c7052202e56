"""Photos to pixels: the one decoder, the preprocessing and the augmentation."""
