"""DIGER: an item tokenizer and a generative recommender trained together."""
