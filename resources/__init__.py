"""What the outside world injects: campaign files, surrogate models, the DFT engine, cores."""
