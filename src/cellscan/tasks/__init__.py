"""Training and prediction: recipe, augmentation, tasks, and the programs that JAX compiles for them."""
