"""The unattended cycle: arrival of snapshots, the decision, the next step, notifications (docs/retraining.md)."""
