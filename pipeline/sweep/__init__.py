"""Many runs: a Hydra multirun planned as a whole."""
