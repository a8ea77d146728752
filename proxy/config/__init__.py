"""What the operator may say: TOML in, frozen settings out."""
