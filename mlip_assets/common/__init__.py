"""What every package may use: durable files, child processes, progress, compilation. No science."""
