"""torch's process group on a private cluster: no socket beyond loopback.

By default rank 0 opens torch's rendezvous store on every interface, whatever address Ray gives the node, and without a token; gloo and NCCL bind to
the interface of the host's name. Here all ranks are on one machine: they meet in a file of the run's private directory, and talk over loopback.
"""

from __future__ import annotations

import contextlib
import os
import socket
import uuid
from dataclasses import dataclass
from typing import Any

# This module is imported where Ray is at work already; its classes travel to the controller by their name.
import ray  # noqa: TID253
from ray.train.backend import Backend, BackendConfig  # noqa: TID253

_GRACE = 30  # seconds to leave the process group


@dataclass
class LoopbackConfig(BackendConfig):
    """`folder`: a local directory that only this user may read. No TorchConfig: its module imports torch, which the controller has no use for and
    would wait a second for."""

    backend: str = "gloo"
    folder: str = ""
    timeout_s: int = 1800

    @property
    def backend_cls(self) -> type[Backend]:
        return LoopbackBackend


class LoopbackBackend(Backend):
    """As Ray's own for torch, with a file in the place of the rendezvous server."""

    share_cuda_visible_devices = True

    def on_start(self, worker_group: Any, backend_config: Any) -> None:
        meeting = f"file://{backend_config.folder}/rendezvous-{uuid.uuid4().hex}"  # a new one for every start: an old one's ranks are gone
        started = [
            worker_group.execute_single_async(
                rank, meet, backend_config.backend, rank, len(worker_group), meeting, backend_config.timeout_s
            )
            for rank in range(len(worker_group))
        ]  # fmt: skip
        ray.get(started)

    def on_shutdown(self, worker_group: Any, backend_config: Any) -> None:
        with contextlib.suppress(ray.exceptions.GetTimeoutError):
            ray.get(worker_group.execute_async(part, len(worker_group) > 1), timeout=_GRACE)


def meet(backend: str, rank: int, world: int, meeting: str, timeout_s: int) -> None:
    """On a worker: joins the process group."""
    from ray.train.torch import config as torch_config

    of_torch: Any = torch_config  # its functions have no types
    of_torch._set_torch_distributed_env_vars()
    stay_on_loopback()
    of_torch._setup_torch_process_group(backend=backend, world_rank=rank, world_size=world, init_method=meeting, timeout_s=timeout_s)


def part(group: bool) -> None:
    """On a worker: leaves the process group, where there is one, and frees its device's memory."""
    from ray.train.torch import config as torch_config

    of_torch: Any = torch_config
    of_torch._shutdown_torch(destroy_process_group=group)


def stay_on_loopback() -> None:
    """gloo and NCCL listen on the loopback interface alone."""
    name = next((name for _, name in socket.if_nameindex() if name.startswith("lo")), "lo")
    for variable in ("GLOO_SOCKET_IFNAME", "TP_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"):
        os.environ[variable] = name
    os.environ["MASTER_ADDR"] = "127.0.0.1"  # whatever else asks for it
