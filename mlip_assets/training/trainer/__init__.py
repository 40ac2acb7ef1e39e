"""The trainer of mace-torch (``mace_run_train``): options, child process, log, one training run."""
