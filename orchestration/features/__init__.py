"""What models read: each user's events in order (`sequences`) and a vector for each item (`embeddings`)."""
