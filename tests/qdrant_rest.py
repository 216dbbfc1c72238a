"""A front that speaks Qdrant's REST over loopback, with qdrant-client's embedded engine behind it.

It is no Qdrant server, and proves nothing about one. It lets tests drive what only happens over HTTP (requests that are
refused, dropped, late, or done though their answer is lost) through the real client, with answers that are real.
"""

import json
import re
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

from qdrant_client import QdrantClient, models
from qdrant_client.http.models import models as wire

VERSION = "1.18.3"


class QdrantRest:
    """Starts on a free port of loopback; `fault` says what goes wrong with which request."""

    def __init__(self, version: str = VERSION) -> None:
        self.client = QdrantClient(location=":memory:", force_disable_check_same_thread=True)
        self.lock = threading.Lock()
        self.version = version
        self.requests: list[tuple[str, str]] = []
        self.bytes_of_largest = 0
        self.created: list[dict[str, Any]] = []
        self.fault: Callable[[str, str], str | None] = lambda _method, _path: None
        """Given method and path: None, an HTTP status, `drop` (unanswered), `late` (done, then dropped), or seconds."""
        self.statuses: list[str] = []
        """What the next looks at a collection say of its status; green when there are no more."""
        self.port = 0
        self.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Listen, on the same port as before if it was stopped; what it holds is still there."""
        front = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_any(self) -> None:
                front.handle(self)

            do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = handle_any  # noqa: N815 - http.server's names

            def log_message(self, *_: object) -> None:
                pass

        ThreadingHTTPServer.allow_reuse_address = True
        self._server = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_port
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def stop(self) -> None:
        """Stop listening, as a server that is gone."""
        self._server.shutdown()
        self._server.server_close()

    def handle(self, handler: BaseHTTPRequestHandler) -> None:
        path, method = unquote(urlsplit(handler.path).path), handler.command
        size = int(handler.headers.get("Content-Length") or 0)
        body = json.loads(handler.rfile.read(size) or b"null")
        self.requests.append((method, path))
        self.bytes_of_largest = max(self.bytes_of_largest, size)
        fault = self.fault(method, path)
        if fault is not None and fault not in {"drop", "late"} and "." in fault:
            time.sleep(float(fault))
        elif fault == "drop":
            handler.close_connection = True
            return
        elif fault is not None and fault != "late":
            self._send(handler, int(fault), {"status": {"error": "told to fail"}})
            return
        try:
            with self.lock:
                result = self._answer(method, path, body)
            status, document = 200, {"result": result, "status": "ok", "time": 0.0}
        except ValueError as error:
            missing = re.fullmatch(r"Collection (\S+) not found", str(error))
            text = f"Not found: Collection `{missing[1]}` doesn't exist!" if missing else str(error)
            status, document = 404 if missing else 400, {"status": {"error": text}, "time": 0.0}
        if fault == "late":
            handler.close_connection = True
            return
        self._send(handler, status, {"title": "qdrant", "version": self.version} if path == "/" else document)

    @staticmethod
    def _send(handler: BaseHTTPRequestHandler, status: int, document: dict) -> None:
        data = json.dumps(document).encode()
        try:
            handler.send_response(status)
            handler.send_header("Content-Type", "application/json")
            handler.send_header("Content-Length", str(len(data)))
            handler.end_headers()
            handler.wfile.write(data)
        except OSError:
            handler.close_connection = True  # the client has given up

    def _answer(self, method: str, path: str, body: Any) -> Any:
        match method, path.split("/")[1:]:
            case "GET", [""]:
                return None
            case "GET", ["collections"]:
                return self.client.get_collections().model_dump(mode="json")
            case "GET", ["aliases"]:
                return self.client.get_aliases().model_dump(mode="json")
            case "POST", ["collections", "aliases"]:
                return self.client.update_collection_aliases(wire.ChangeAliasesOperation.model_validate(body).actions)
            case _, ["collections", name, *rest]:
                return self._collection(method, name, "/".join(rest), body)
        raise AssertionError(f"{method} {path} is not spoken here")

    def _collection(self, method: str, name: str, what: str, body: Any) -> Any:  # noqa: C901, PLR0911, PLR0912 - a table
        client = self.client
        match method, what:
            case "GET", "exists":
                return {"exists": client.collection_exists(name)}
            case "GET", "":
                found = client.get_collection(name).model_dump(mode="json", exclude_none=True)
                return found | {"status": self.statuses.pop(0) if self.statuses else "green"}
            case "PUT", "":
                self.created.append(body)
                asked = wire.CreateCollection.model_validate(body)
                return client.create_collection(
                    name,
                    vectors_config=asked.vectors,
                    sparse_vectors_config=asked.sparse_vectors,
                    metadata=asked.metadata,
                )
            case "DELETE", "":
                return client.delete_collection(name)
            case "PATCH", "":
                return client.update_collection(name, metadata=wire.UpdateCollection.model_validate(body).metadata)
            case "PUT", "index":
                wire.CreateFieldIndex.model_validate(body)
                return {"operation_id": 0, "status": "completed"}
            case "PUT", "points":
                client.upsert(name, wire.PointsList.model_validate(body).points)
                return {"operation_id": 0, "status": "completed"}
            case "POST", "points/delete":
                client.delete(name, models.PointIdsList.model_validate(body))
                return {"operation_id": 0, "status": "completed"}
            case "POST", "points":
                asked = wire.PointRequest.model_validate(body)
                found = client.retrieve(
                    name, asked.ids, with_payload=asked.with_payload, with_vectors=asked.with_vector
                )
                return [record.model_dump(mode="json") for record in found]
            case "POST", "points/scroll":
                asked = wire.ScrollRequest.model_validate(body)
                records, offset = client.scroll(
                    name,
                    asked.filter,
                    limit=asked.limit,
                    offset=asked.offset,
                    with_payload=asked.with_payload,
                    with_vectors=asked.with_vector,
                )
                return {"points": [record.model_dump(mode="json") for record in records], "next_page_offset": offset}
            case "POST", "points/count":
                return client.count(name, wire.CountRequest.model_validate(body).filter).model_dump(mode="json")
            case "POST", "points/query/batch":
                asked = wire.QueryRequestBatch.model_validate(body)
                return [
                    found.model_dump(mode="json") for found in client.query_batch_points(name, requests=asked.searches)
                ]
            case "POST", "facet":
                asked = wire.FacetRequest.model_validate(body)
                return client.facet(name, asked.key, asked.filter, asked.limit).model_dump(mode="json")
        raise AssertionError(f"{method} /collections/{name}/{what} is not spoken here")
