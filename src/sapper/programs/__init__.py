"""Programs: a builder's module or a Transformers model with its inputs and loss, as capture and prove both run them."""
