"""Tables and JSON of a study folder, read and written without torch, Ray or Optuna."""
