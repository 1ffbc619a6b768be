"""What the runtime does, one file per verb. Services open the transactions; entrypoints only convert."""
