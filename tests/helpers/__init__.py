"""What several tests need: bundles to damage, child processes, drawn inputs, a reference to compare with."""
