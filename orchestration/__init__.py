"""The pipeline around diger_core, in the order in which it runs. graph.py declares the stages; each group of stages is a folder.

graph.py          the stages: what each is made from, its parameters, its hooks; stage.py: what a stage is
params/           params.yaml: sections, loading, reference
engine/           computes a stage once: runner, what a stage gets, provenance, registry of snapshots, console, scratch

snapshot/         raw_items, raw_interactions; reading files, ingest from exports, the embedded shop, arrival
validation/       validated_items, validated_interactions; columns, rules, quarantine, Great Expectations
features/         sequences, embeddings, neighbours; encoders
change/           catalogue_diff, cold_start
training/         tokenizer, frozen_model, joint_model, refit; warm start
ids/              semantic_ids, id_diff
verdict/          evaluation, fusion, bundle, gate, report
serving/          release, recommendations; rules; the same lists online (online/) and over HTTP (http/); export
search/           decay_search, tuned_model, training_comparison

champion/         the log of releases, bundles, the bundle that a run starts from
audit/            which data, code and IDs made what; verify, reproduce, forget
on_ray/, on_dagster/, on_dvc.py   the only places that import those tools (Dagster also in assets/ and definitions.py)
serving/http/     likewise for FastAPI, uvicorn and the Prometheus client
cli/              the command `diger`
"""
