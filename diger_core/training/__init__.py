"""Joint and frozen training: noise, assignment, decay schedules, the differentiable step, the loop, checkpoints, monitors."""
