"""The training loop, distillation, batches and precision; it knows no tuner and no method."""
