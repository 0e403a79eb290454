"""What the report is made of: the stages' artefacts, read once. A stage that did not run is simply absent."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from diger_core.item_ids import require_all
from orchestration import graph
from orchestration.validation.columns import title_column
from orchestration.verdict.gate.document import VERDICT, GateVerdict
from orchestration.verdict.report.text import printable

if TYPE_CHECKING:
    import pyarrow as pa

    from diger_core.data.sequences import Sequences
    from diger_core.evaluation.metrics import Metrics
    from diger_core.evaluation.recipes import Fitted
    from diger_core.store.artefact import Artefact
    from orchestration.validation.quarantine import Checks

STAGES = tuple(stage.name for stage in graph.STAGES if stage.name != "report")
MODELS = ("joint_model", "frozen_model")


@dataclass(frozen=True)
class Material:
    """Lazy views of the inputs. Item arrays are in the order of `sequences`' item indices."""

    inputs: Mapping[str, Artefact]

    def has(self, stage: str, name: str | None = None) -> bool:
        return stage in self.inputs and (name is None or name in self.inputs[stage].names)

    @property
    def stages(self) -> list[str]:
        """Inputs in the order of the flow, unknown ones last."""
        return [s for s in STAGES if s in self.inputs] + sorted(set(self.inputs) - set(STAGES))

    @cached_property
    def metrics(self) -> Metrics:
        metrics: Metrics = self.inputs["evaluation"].json("metrics.json")
        return metrics

    @cached_property
    def gate(self) -> GateVerdict | None:
        """The gate's verdict; None where the run had none."""
        return self.inputs["gate"].json(VERDICT) if self.has("gate", VERDICT) else None

    @cached_property
    def fusion(self) -> Fitted | None:
        """What the lists are mixed from; None where the run had no such stage."""
        from diger_core.evaluation.recipes import Fitted
        from orchestration.champion.bundle import FUSION

        return Fitted.from_document(self.inputs["fusion"].json(FUSION)) if self.has("fusion", FUSION) else None

    @cached_property
    def curves(self) -> dict[str, list[dict[str, Any]]]:
        """Rows per epoch of each model that was trained, and of the tokenizer's warm-up."""
        return {s: self.inputs[s].json("curves.json") for s in (*MODELS, "tokenizer") if self.has(s, "curves.json")}

    @cached_property
    def code_usage(self) -> np.ndarray | None:
        """Items on each code in the joint model's table, int64 [E + 1, M, K]: before training and after each epoch; None: not recorded."""
        if not self.has("joint_model", "code_usage.parquet"):
            return None
        table = self.inputs["joint_model"].table("code_usage.parquet").sort_by([("epoch", "ascending"), ("level", "ascending")])
        items = np.array(table["items"].to_pylist(), dtype=np.int64)
        return items.reshape(-1, int(table["level"].to_numpy().max()), items.shape[1])

    @cached_property
    def configs(self) -> dict[str, Any]:
        return {s: self.inputs[s].json("config.json") for s in ("tokenizer", *MODELS) if self.has(s, "config.json")}

    @cached_property
    def item_ids(self) -> pa.ChunkedArray:
        return self.inputs["sequences"].table("items.parquet")["item_id"]

    def _rows(self, table: pa.Table, what: str) -> np.ndarray:
        """[N]: where each item stands in `table`."""
        return require_all(self.item_ids, table["item_id"], what="report, items of sequences", table=what, remedy="run the stages again")

    @cached_property
    def semantic_ids(self) -> tuple[np.ndarray, np.ndarray]:
        """(codes int64 [N, M], suffix int64 [N]) in item order."""
        table = self.inputs["semantic_ids"].table("semantic_ids.parquet")
        table = table.take(self._rows(table, "semantic_ids.parquet"))
        names = sorted((n for n in table.column_names if n.startswith("code_")), key=lambda n: int(n.split("_")[1]))
        codes = np.stack([table[n].to_numpy() for n in names], axis=1).astype(np.int64)
        return codes, table["suffix"].to_numpy().astype(np.int64)

    @cached_property
    def code_count(self) -> int:
        """K, as the tokenizer's configuration or facts say; else the largest code in use plus one."""
        seen = int(self.semantic_ids[0].max(initial=0)) + 1
        for source in (self.inputs["tokenizer"].facts if self.has("tokenizer") else {}, self.configs.get("tokenizer", {})):
            known = source.get("codes") or source.get("K")
            if isinstance(known, (int, float)) and known >= seen:
                return int(known)
        return seen

    @cached_property
    def seq(self) -> Sequences:
        from diger_core.data.sequences import Sequences

        return Sequences.from_tensors(self.inputs["sequences"].tensors("sequences.safetensors"))

    @property
    def offsets(self) -> np.ndarray:
        return self.seq.offsets_U1

    @cached_property
    def visits(self) -> np.ndarray:
        """Events of each item, [N]."""
        return np.bincount(self.seq.events_E, minlength=len(self.item_ids))

    @cached_property
    def vectors(self) -> np.ndarray:
        return self.inputs["embeddings"].tensors("vectors.safetensors")["vectors"].float().numpy()

    @cached_property
    def _title_column(self) -> pa.ChunkedArray:
        """The column that reads like a title, in item order; the ids where the catalogue has no text."""
        if not self.has("validated_items", "items.parquet"):
            return self.item_ids
        import pyarrow.parquet as pq

        path = self.inputs["validated_items"].path("items.parquet")
        column = title_column(pq.read_schema(path))
        if column is None:
            return self.item_ids
        table = pq.read_table(path, columns=["item_id", column])
        return table[column].take(self._rows(table, "items.parquet"))

    def title(self, item: int, limit: int = 96) -> str:
        """The title of an item, fit to print; its id where it has none."""
        text = self._title_column[int(item)].as_py()
        return printable(text, limit) or printable(self.item_ids[int(item)].as_py(), limit)

    def checks(self, stage: str) -> Checks | None:
        return self.inputs[stage].json("checks.json") if self.has(stage, "checks.json") else None

    def quarantine(self, stage: str) -> list[tuple[str, int]]:
        """(reason, rows), most frequent first."""
        if not self.has(stage, "quarantine.parquet"):
            return []
        import pyarrow.compute as pc

        counts = pc.value_counts(self.inputs[stage].table("quarantine.parquet", columns=["reason"])["reason"].combine_chunks()).to_pylist()
        return sorted(((printable(c["values"]), c["counts"]) for c in counts), key=lambda pair: (-pair[1], pair[0]))
