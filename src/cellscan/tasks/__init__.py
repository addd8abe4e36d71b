"""What networks are trained and used for: recipe, augmentation, tasks, and the programs that JAX compiles for them."""
