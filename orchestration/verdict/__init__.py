"""May the new model serve? `evaluation`, `bundle`, `gate` and `report`."""
