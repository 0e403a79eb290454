"""An object store in this process that fails on demand: enough of the S3 protocol for s3fs, and no signature checks."""

from __future__ import annotations

import hashlib
import socket
import struct
import threading
import time
import urllib.parse
import uuid
import xml.etree.ElementTree as xml
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from xml.sax.saxutils import escape

REFUSALS = {
    "500": (500, "InternalError", "on demand"),
    "503": (503, "SlowDown", "on demand"),
    "403": (403, "AccessDenied", "on demand"),
    "expired": (400, "ExpiredToken", "The provided token has expired. token=canary-secret-51b2"),
    "skewed": (403, "RequestTimeTooSkewed", "The difference between the request time and the current time is too large."),
}
FAULTS = ("500", "503", "reset", "truncated", "slow", "hang")


class FaultyS3:
    """Objects by bucket/key. `fail(method, kind, times, words)`: the next requests of that method whose path holds `words` fail so."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.uploads: dict[str, tuple[str, dict[int, bytes]]] = {}  # begun uploads in several parts: id -> (key, parts)
        self.planned: list[list[Any]] = []
        self.requests: list[tuple[str, str]] = []
        self.lock = threading.Lock()
        self.hang = 2.0  # seconds
        self.page = 1000  # names in an answer to a listing

    def fail(self, method: str, kind: str, times: int = 1, words: str = "") -> None:
        self.planned.append([method, kind, times, words])

    def due(self, method: str, path: str) -> str | None:
        with self.lock:
            self.requests.append((method, path))
            for plan in self.planned:
                if plan[0] == method and plan[2] > 0 and plan[3] in path:
                    plan[2] -= 1
                    return str(plan[1])
        return None


def environment(endpoint: str) -> dict[str, str]:
    """What a process needs to reach the store."""
    return {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": "access",
        "AWS_SECRET_ACCESS_KEY": "canary-secret-51b2",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_REQUEST_CHECKSUM_CALCULATION": "when_required",
        "AWS_RESPONSE_CHECKSUM_VALIDATION": "when_required",
    }


@contextmanager
def faulty_s3() -> Iterator[tuple[FaultyS3, str]]:
    """(the store, its endpoint's URL)."""
    store = FaultyS3()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(store))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield store, f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _handler(store: FaultyS3) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *arguments: Any) -> None:
            """Nothing: a test's output is its own."""

        def handle_request(self, work: Callable[[str, dict[str, list[str]], bytes], None]) -> None:
            url = urllib.parse.urlsplit(self.path)
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            key, query = urllib.parse.unquote(url.path).lstrip("/"), urllib.parse.parse_qs(url.query, keep_blank_values=True)
            kind = store.due(self.command, key)
            if kind == "reset":
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                self.connection.close()
                self.close_connection = True
            elif kind in REFUSALS:
                number, code, told = REFUSALS[kind]
                answer = f"<Error><Code>{code}</Code><Message>{told}</Message></Error>".encode()
                self.answer(number, b"" if self.command == "HEAD" else answer)
            else:
                if kind == "hang":
                    time.sleep(store.hang)
                self.broken = kind
                work(key, query, body)

        def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
            broken, self.broken = getattr(self, "broken", None), None
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name.replace("_", "-"), value)
            self.send_header("Content-Length", str(len(body)) if "length" not in headers else headers["length"])
            self.end_headers()
            if self.command == "HEAD":
                return
            if broken == "truncated" and len(body) > 1:
                self.wfile.write(body[: len(body) // 2])
                self.wfile.flush()
                self.connection.close()
                self.close_connection = True
            elif broken == "slow":
                for start in range(0, len(body), max(1, len(body) // 10)):
                    self.wfile.write(body[start : start + max(1, len(body) // 10)])
                    self.wfile.flush()
                    time.sleep(0.1)
            else:
                self.wfile.write(body)

        def found(self, key: str, _: dict[str, list[str]], __: bytes) -> None:
            data = store.objects.get(key)
            if data is None:
                self.answer(404, b"" if self.command == "HEAD" else b"<Error><Code>NoSuchKey</Code></Error>")
                return
            self.answer(200, data, ETag=_etag(data), Last_Modified="Mon, 01 Jan 2024 00:00:00 GMT")

        def do_HEAD(self) -> None:
            self.handle_request(self.found)

        def do_GET(self) -> None:
            def work(key: str, query: dict[str, list[str]], body: bytes) -> None:
                if "list-type" in query:
                    self.listing(key, query)
                elif "uploads" in query:
                    self.begun_uploads(key, query)
                else:
                    self.found(key, query, body)

            self.handle_request(work)

        def listing(self, bucket: str, query: dict[str, list[str]]) -> None:
            prefix, delimiter = query.get("prefix", [""])[0], query.get("delimiter", [""])[0]
            bucket = bucket.rstrip("/")
            names = [name for key in list(store.objects) if key.startswith(f"{bucket}/{prefix}") for name in [key.removeprefix(f"{bucket}/")]]
            parts: dict[str, str] = {}
            for name in names:
                rest = name.removeprefix(prefix)
                if delimiter and delimiter in rest:
                    folder = prefix + rest.split(delimiter)[0] + delimiter
                    parts[folder] = f"<CommonPrefixes><Prefix>{escape(folder)}</Prefix></CommonPrefixes>"
                else:
                    data = store.objects[f"{bucket}/{name}"]
                    parts[name] = (
                        f"<Contents><Key>{escape(name)}</Key><Size>{len(data)}</Size><ETag>{escape(_etag(data))}</ETag>"
                        "<LastModified>2024-01-01T00:00:00.000Z</LastModified></Contents>"
                    )
            left = [name for name in sorted(parts) if name > query.get("continuation-token", [""])[0]]
            page = left[: store.page]
            more = f"<NextContinuationToken>{escape(page[-1])}</NextContinuationToken>" if len(left) > len(page) else ""
            told = f"<IsTruncated>{'true' if more else 'false'}</IsTruncated>{more}{''.join(parts[name] for name in page)}"
            self.answer(200, f"<ListBucketResult>{told}</ListBucketResult>".encode())

        def do_PUT(self) -> None:
            def put(key: str, query: dict[str, list[str]], body: bytes) -> None:
                if "uploadId" in query:
                    store.uploads[query["uploadId"][0]][1][int(query["partNumber"][0])] = body
                    self.answer(200, ETag=_etag(body))
                    return
                with store.lock:
                    if self.headers.get("If-None-Match") == "*" and key in store.objects:
                        taken = True
                    else:
                        taken, store.objects[key] = False, body
                if taken:
                    self.answer(412, b"<Error><Code>PreconditionFailed</Code></Error>")
                else:
                    self.answer(200, ETag=_etag(body))

            self.handle_request(put)

        def do_DELETE(self) -> None:
            def delete(key: str, query: dict[str, list[str]], body: bytes) -> None:
                if "uploadId" in query:
                    store.uploads.pop(query["uploadId"][0], None)
                else:
                    store.objects.pop(key, None)
                self.answer(204)

            self.handle_request(delete)

        def begun(self, key: str, query: dict[str, list[str]], body: bytes) -> None:
            name = uuid.uuid4().hex
            store.uploads[name] = (key, {})
            self.answer(200, f"<InitiateMultipartUploadResult><UploadId>{name}</UploadId></InitiateMultipartUploadResult>".encode())

        def completed(self, key: str, query: dict[str, list[str]], body: bytes) -> None:
            """S3 says 200 when it begins to put the parts together; that this has failed comes after it, in the body."""
            if store.due("COMPLETE", key) == "200 with an error":
                self.answer(200, b"<Error><Code>InternalError</Code><Message>on demand</Message></Error>")
                return
            _, parts = store.uploads.pop(query["uploadId"][0])
            store.objects[key] = b"".join(parts[number] for number in sorted(parts))
            self.answer(200, f"<CompleteMultipartUploadResult><ETag>{_etag(store.objects[key])}</ETag></CompleteMultipartUploadResult>".encode())

        def begun_uploads(self, bucket: str, query: dict[str, list[str]]) -> None:
            bucket, wanted = bucket.rstrip("/"), query.get("prefix", [""])[0]
            found = [(key.removeprefix(f"{bucket}/"), name) for name, (key, _) in store.uploads.items() if key.startswith(f"{bucket}/{wanted}")]
            listed = "".join(f"<Upload><Key>{escape(key)}</Key><UploadId>{name}</UploadId></Upload>" for key, name in found)
            self.answer(200, f"<ListMultipartUploadsResult>{listed}</ListMultipartUploadsResult>".encode())

        def do_POST(self) -> None:
            def delete(key: str, query: dict[str, list[str]], body: bytes) -> None:
                gone = [node.text or "" for node in xml.fromstring(body).iter() if node.tag.endswith("Key")]
                for name in gone:
                    store.objects.pop(f"{key.rstrip('/')}/{name}", None)
                self.answer(200, b"<DeleteResult></DeleteResult>")

            def work(key: str, query: dict[str, list[str]], body: bytes) -> None:
                (self.begun if "uploads" in query else self.completed if "uploadId" in query else delete)(key, query, body)

            self.handle_request(work)

    return Handler


def _etag(data: bytes) -> str:
    return f'"{hashlib.md5(data, usedforsecurity=False).hexdigest()}"'
