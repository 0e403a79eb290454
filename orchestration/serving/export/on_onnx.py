"""The exported model as ONNX (extra `onnx`): two graphs in fp32, and their check with onnxruntime. The only place that imports onnxruntime.

encoder.onnx    history [B, T, d], mask [B, T] (true on tokens, padding at the end)     -> memory [B, T, d]
decoder.onnx    token int64 [B, W], memory, mask, past [layers, 2, B, W, p, H, e]       -> log_probabilities [B, W, C], present

One call of the decoder is one position: p positions lie before it, `present` is the next call's past. Token 0 starts, 1 + level * codes + code is a
code that a beam has taken. Of the C columns those behind the position's last code hold about -1e9. B rows, W beams, which share their row's memory.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

import numpy as np

from diger_core.errors import DigerError
from orchestration.serving.export.check import Export, Wrong, compare, golden

if TYPE_CHECKING:
    from diger_core.recommender.model import Recommender

ENCODER, DECODER = "encoder.onnx", "decoder.onnx"
WRITING, RUNNING = ("onnx", "onnxscript", "onnxruntime"), ("onnxruntime",)
REMEDY = "pip install 'diger[onnx]'"
NOTHING = -1e9  # finite: the logarithm of a sum over the columns stays exact


class Compared(TypedDict):
    """Golden requests whose answers are as exported, and the largest difference of a log-probability."""

    golden: int
    furthest: float


def lacking(packages: tuple[str, ...]) -> list[str]:
    """Those that are not installed."""
    return [name for name in packages if find_spec(name) is None]


def write_onnx(recommender: Recommender, folder: Path) -> None:
    """Writes both graphs. DigerError where what makes them is not installed."""
    if missing := lacking(WRITING):
        raise DigerError(f"--onnx needs {', '.join(missing)}: {REMEDY}")
    import torch
    from torch.export import Dim

    config, free = recommender.config, Dim.DYNAMIC
    encoder, decoder = _modules(recommender)
    rows, beams, before, tokens = 2, 3, 2, max(2, config.history * recommender.tokens_per_item)  # sizes of 0 and 1 would become constants
    history_BTd, mask_BT = torch.zeros(rows, tokens, config.d_model), torch.ones(rows, tokens, dtype=torch.bool)
    past = torch.zeros(config.decoder_layers, 2, rows, beams, before, config.heads, config.d_head)
    token_BW, two = torch.zeros(rows, beams, dtype=torch.int64), {0: free, 1: free}
    of_encoder = {"history": two, "mask": two}
    of_decoder = {"token": two, "memory": two, "mask": two, "past": {2: free, 3: free, 4: free}}
    graphs: list[tuple[str, Any, tuple[Any, ...], dict[str, Any], list[str]]] = [
        (ENCODER, encoder, (history_BTd, mask_BT), of_encoder, ["memory"]),
        (DECODER, decoder, (token_BW, history_BTd, mask_BT, past), of_decoder, ["log_probabilities", "present"]),
    ]
    with _quiet():
        for name, module, given, shapes, outputs in graphs:
            program = torch.onnx.export(
                module, given, dynamo=True, input_names=list(shapes), output_names=outputs, dynamic_shapes=shapes, verbose=False
            )  # fmt: skip
            assert program is not None
            graph = program.model_proto
            for node in graph.graph.node:
                del node.metadata_props[:]  # where in this machine's Python it came from
            (folder / name).write_bytes(graph.SerializeToString())


def _modules(recommender: Recommender) -> tuple[Any, Any]:
    """(encoder, decoder) as the graphs are, around the recommender's own layers."""
    import torch
    from torch import Tensor, nn

    from diger_core.recommender.model import DecoderLayer

    tables = [table.detach() for table in recommender.token_tables]
    positions, width = max(3, len(tables)), max(len(table) for table in tables)
    start = torch.cat((recommender.start.detach()[None], *tables[:-1]))
    outputs, nothing = torch.zeros(positions, width, recommender.config.d_model), torch.full((positions, width), NOTHING)
    for position, table in enumerate(tables):
        outputs[position, : len(table)], nothing[position, : len(table)] = table, 0
    bias_QPH = torch.zeros(positions, positions, recommender.config.heads)
    bias_QPH[: len(tables), : len(tables)] = recommender.decoder_bias(len(tables)).detach().permute(1, 2, 0)

    class Encoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.recommender = recommender

        def forward(self, history: Tensor, mask: Tensor) -> Tensor:
            return self.recommender.encode(history, mask)

    class Decoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.recommender = recommender
            for name, tensor in (("start", start), ("outputs", outputs), ("nothing", nothing), ("bias", bias_QPH)):
                self.register_buffer(name, tensor)

        def forward(self, token: Tensor, memory: Tensor, mask: Tensor, past: Tensor) -> tuple[Tensor, Tensor]:
            position, pasts = past.shape[4], []
            x_BWd = nn.functional.embedding(token, self.get_buffer("start"))
            bias_Hp = self.get_buffer("bias")[position, : position + 1].T
            cache = self.recommender.cross_keys_values(memory, mask)
            for place, (layer, cross_kv) in enumerate(zip(self.recommender.decoder_layers, cache.cross_kv, strict=True)):
                assert isinstance(layer, DecoderLayer)
                x_BWd, one = layer.step(x_BWd, bias_Hp, past[place], cross_kv, cache.cross_bias)
                pasts.append(one)
            logits = self.recommender.decoder_norm(x_BWd) @ self.get_buffer("outputs")[position].T + self.get_buffer("nothing")[position]
            return logits.log_softmax(-1), torch.stack(pasts)

    return Encoder().eval(), Decoder().eval()


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's lines about packages that nobody needs here."""
    log = logging.getLogger("torch.onnx")
    before = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            yield
    finally:
        log.setLevel(before)


class Graphs:
    """Both graphs opened with onnxruntime on `threads` CPU threads; None: as many as it takes by itself."""

    def __init__(self, folder: Path, threads: int | None = None) -> None:
        import onnxruntime

        onnxruntime.disable_telemetry_events()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or 0
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # a thread that spins takes the core from whoever else runs
        opened = (onnxruntime.InferenceSession(str(folder / name), options, providers=["CPUExecutionProvider"]) for name in (ENCODER, DECODER))
        self._encoder, self._decoder = opened

    def encode(self, history_BTd: np.ndarray, mask_BT: np.ndarray) -> np.ndarray:
        """Memory [B, T, d]."""
        (memory_BTd,) = self._encoder.run(None, {"history": history_BTd, "mask": mask_BT})
        return np.asarray(memory_BTd)

    def step(self, token_BW: np.ndarray, memory_BTd: np.ndarray, mask_BT: np.ndarray, past: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(log-probabilities [B, W, C], present)."""
        scores_BWC, present = self._decoder.run(None, {"token": token_BW, "memory": memory_BTd, "mask": mask_BT, "past": past})
        return np.asarray(scores_BWC), np.asarray(present)


class OnnxExport(Export):
    """An opened export whose model is the graphs; the trie is walked as `Export` walks it."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.graphs = Graphs(folder)

    def encode(self, rows: list[int]) -> np.ndarray:
        tokens_Td = self.tokens_NTd[rows[-self.model["history"] :]].reshape(1, -1, self.model["d_model"])
        memory_Td: np.ndarray = self.graphs.encode(tokens_Td, np.ones(tokens_Td.shape[:2], dtype=bool))[0]
        return memory_Td

    def step(self, memory_Td: np.ndarray, codes: list[tuple[int, ...]]) -> np.ndarray:
        """The beams' codes are taken one position after the other, with what is past."""
        position, sizes = len(codes[0]), (self.model["heads"], self.model["d_head"])
        token_Wp = np.array([[0, *(1 + level * self.model["codes"] + code for level, code in enumerate(taken))] for taken in codes], dtype=np.int64)
        past = np.zeros((self.model["decoder_layers"], 2, 1, len(codes), 0, *sizes), dtype=np.float32)
        mask_1T = np.ones((1, len(memory_Td)), dtype=bool)
        for place in range(position + 1):
            scores_1WC, past = self.graphs.step(token_Wp[None, :, place], memory_Td[None], mask_1T, past)
        out: np.ndarray = scores_1WC[0, :, : self.model["codes"] if position < self.model["levels"] else self.model["suffixes"]]
        return out


def compared(folder: Path) -> Compared:
    """The golden requests through onnxruntime. Wrong where one is answered otherwise, up to items of equal probability."""
    export = OnnxExport(folder)
    try:
        apart = [compare(export, place, request) for place, request in enumerate(golden(folder))]
    except Wrong as error:
        raise Wrong(f"{ENCODER}, {DECODER}: {error}") from error
    return {"golden": len(apart), "furthest": max(apart, default=0.0)}
