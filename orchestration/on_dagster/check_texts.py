"""What each check of the validated stages and of the gate asks, in a sentence: what the UI shows of a check before, and beside, its result."""

from __future__ import annotations

_TEXTS = {
    "items_left": "Enough items pass the rules to make a catalogue (`validated_items.min_items`).",
    "events_left": "Events are left after the quarantine.",
    "quarantined_share": "The share of rows in quarantine is at most `max_quarantined`; above it the run stops.",
    "volume": "The file has about as many rows as the previous snapshot's (`min_volume_ratio` to `max_volume_ratio`).",
    "text_missing": "Every item has its texts, or the snapshot brings vectors; items without are kept.",
    "equal_texts": "Few items share their whole text (`warn_equal_texts`): only the suffix of their IDs tells them apart.",
    "control_characters": "No text holds control, zero-width or bidirectional characters.",
    "look_alike_ids": "No two item ids differ only in Unicode form or surrounding space.",
    "look_alike_user_ids": "No two user ids differ only in Unicode form or surrounding space.",
    "vectors_of_unknown_items": "Every vector that the snapshot brings belongs to an item.",
    "columns_ignored": "Columns of the file that nothing reads, a misspelt one among them. It never fails.",
    "short_histories": "Users have three events or more; of shorter histories nothing is trained or tested.",
    "repeated_events": "No user has the same item twice; repetitions are kept.",
    "items_never_seen": "Every item has an event; the others are kept, with text alone to place them.",
    "events_not_selected": "How many events `event_types` leaves out. It never fails.",
    "gx_received_row_count": "The file as it came: its number of rows is plausible.",
    "gx_received_item_id_not_null": "The file as it came: item ids are missing in no more rows than the quarantine may take.",
    "gx_received_user_id_not_null": "The file as it came: user ids are missing in no more rows than the quarantine may take.",
    "gx_received_item_id_unique": "The file as it came: each item is there once.",
    "gx_row_count": "The kept table: it has rows enough.",
    "gx_item_id_type": "The kept table: item ids are integers or text, never floats.",
    "gx_user_id_type": "The kept table: user ids are integers or text, never floats.",
    "gx_item_id_not_null": "The kept table: every row has an item id.",
    "gx_user_id_not_null": "The kept table: every row has a user id.",
    "gx_item_id_unique": "The kept table: each item is there once.",
    "gx_item_id_in_order": "The kept table: items are in canonical order.",
    "gx_item_id_known": "The kept table: every event is of an item of the catalogue.",
    "gx_text_present": "The kept table: every item has text.",
    "gx_vector_finite": "The kept table: vectors hold finite numbers only.",
    "gx_timestamp_not_early": "The kept table: no event is older than `earliest`.",
    "gx_timestamp_not_future": "The kept table: no event lies in the future, or after `latest`.",
    "gx_events_in_order": "The kept table: each user's events are in order.",
    "gx_weight_not_negative": "The kept table: no weight is negative.",
}

# The rules of orchestration/verdict/gate/rules.py
RULE_TEXTS = {
    "servable": "The bundle, opened as it lies in the store, recommends to a sample of users.",
    "no_alarm": "Training ended without a collapse or divergence alarm.",
    "unique_ids": "Every item has a semantic ID of its own.",
    "reserved_ids": "No item holds an ID that a released table gave to another.",
    "unique_prefixes": "Enough different prefixes for the catalogue (`gate.min_unique_prefixes`).",
    "coverage": "Enough of the catalogue stands in somebody's top 10 (`gate.min_coverage`).",
    "most_popular": "The lists are not below the most popular items (`gate.beat_most_popular`).",
    "best_baseline": "The lists' NDCG@10 is not below the best counting baseline's, beyond the 95% interval (`gate.beat_baseline`).",
    "new_items": "On targets without a training event the lists keep enough of what texts alone find (`gate.min_new_items`).",
    "relative_ndcg": "NDCG@10 over the champion's on the same users (`gate.min_relative_ndcg`, judged by `gate.judge`).",
    "known_to_both": "The same on targets that both models know.",
    "head": "No real loss on popular targets (`gate.min_relative_slice`).",
    "tail": "No real loss on rare targets (`gate.min_relative_slice`).",
    "anchor": "NDCG@10 over that of a bundle that stays the same, so that small losses do not add up (`gate.min_relative_anchor`).",
    "relative_coverage": "Coverage of the catalogue over the champion's (`gate.min_relative_coverage`).",
    "common_items": "The catalogue still has the champion's items (`gate.min_common_items`).",
    "churn": "Events of items whose ID changed against the champion (`gate.max_churn`, at most).",
}


def check_text(stage: str, name: str) -> str:
    """The sentence of a declared check; a KeyError where somebody adds a check and no sentence."""
    from orchestration.validation import interaction_rules as validation_interactions
    from orchestration.validation import item_rules as validation_items

    reasons = {"validated_items": validation_items.REASONS, "validated_interactions": validation_interactions.REASONS}[stage]
    key = name.removeprefix("quarantined_")
    if name != key and key in reasons:
        return f"No row is quarantined because {reasons[key]}. A warning: what such rows are together is limited by `quarantined_share`."
    return _TEXTS[name]
