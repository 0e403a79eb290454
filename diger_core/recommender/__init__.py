"""The generative recommender and its search over real items; SASRec as a model that ranks items directly."""
