"""torch's process group on a private cluster: no socket beyond loopback.

By default rank 0 opens torch's rendezvous store on every interface, whatever address Ray gives the node, and without a token; gloo and NCCL bind to
the interface of the host's name. Here all ranks are on one machine: they meet in a file of the run's private directory, and talk over loopback.
"""

from __future__ import annotations

import os
import socket
import uuid
from dataclasses import dataclass
from typing import Any

# This module is imported where Ray is at work already; its classes travel to the controller by their name.
import ray  # noqa: TID253
from ray.train.torch.config import TorchConfig, _set_torch_distributed_env_vars, _setup_torch_process_group, _TorchBackend  # noqa: TID253


@dataclass
class LoopbackConfig(TorchConfig):
    """`folder`: a local directory that only this user may read."""

    folder: str = ""

    @property
    def backend_cls(self) -> type[_TorchBackend]:
        return LoopbackBackend


class LoopbackBackend(_TorchBackend):
    """As Ray's own, with a file in the place of the rendezvous server."""

    def on_start(self, worker_group: Any, backend_config: Any) -> None:
        meeting = f"file://{backend_config.folder}/rendezvous-{uuid.uuid4().hex}"  # a new one for every start: an old one's ranks are gone
        worker_group.execute(_set_torch_distributed_env_vars)
        worker_group.execute(stay_on_loopback)
        started = [
            worker_group.execute_single_async(
                rank,
                _setup_torch_process_group,
                backend=backend_config.backend,
                world_rank=rank,
                world_size=len(worker_group),
                init_method=meeting,
                timeout_s=backend_config.timeout_s,
            )
            for rank in range(len(worker_group))
        ]
        ray.get(started)


def stay_on_loopback() -> None:
    """gloo and NCCL listen on the loopback interface alone."""
    name = next((name for _, name in socket.if_nameindex() if name.startswith("lo")), "lo")
    for variable in ("GLOO_SOCKET_IFNAME", "TP_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"):
        os.environ[variable] = name
    os.environ["MASTER_ADDR"] = "127.0.0.1"  # whatever else asks for it
