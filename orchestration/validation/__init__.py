"""Which rows may be used: `validated_items` and `validated_interactions`, with rules, quarantine and expectations."""
