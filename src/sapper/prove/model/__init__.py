"""prove model: a whole training step on a device, op by op on the inputs it really had, and as a whole against correct runs."""
