"""Latency on another device, through a plain function: what travels is safetensors and JSON."""

import http.client
import itertools
import json
import tempfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from torch import nn

import secateur
from simulated import simulated_seconds

WIDTHS = (64, 256, 256, 32)


def build() -> nn.Module:
    return nn.Sequential(*(nn.Linear(a, b) for a, b in itertools.pairwise(WIDTHS)))


class Device(BaseHTTPRequestHandler):
    """The device's side: it has the code of the model, and is sent weights and widths."""

    received: ClassVar[list[bytes]] = []

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.received.append(body)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "model.safetensors")
            path.write_bytes(body)
            model = secateur.load(build, path)
        answer = json.dumps({"seconds": simulated_seconds(model)}).encode()
        self.send_response(200)
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def port() -> Iterator[int]:
    with HTTPServer(("127.0.0.1", 0), Device) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


def test_a_device_elsewhere_is_a_function_of_the_model(port, tmp_path):
    Device.received.clear()

    def on_device(model: nn.Module) -> float:
        path = tmp_path / "model.safetensors"
        secateur.save(model, path)
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        connection.request("POST", "/", path.read_bytes())
        return json.loads(connection.getresponse().read())["seconds"]

    ir = secateur.PruningIR(build())
    ir.create_snapshot("main", args=(torch.ones(1, 64),))
    target = 0.5 * simulated_seconds(ir.model)
    constraint = secateur.ChannelsConstraint(step=16)
    selector = secateur.KnapsackLabelSelector(target, on_device, True, constraint, verbose=False)
    small = ir.prune(labels=selector.select(ir))
    assert simulated_seconds(small.model) <= target
    assert len(Device.received) == len(set(Device.received)) >= 3  # the same widths are sent once
    assert not any(b"pickle" in body or body[:2] == b"PK" for body in Device.received)
