"""A stand-in for Google Cloud Storage: the part of its JSON API that reading needs.

https://cloud.google.com/storage/docs/json_api/v1: list, metadata, and ranged download of objects.
"""

import base64
import contextlib
import hashlib
import json
import os
import threading
import time
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

# Asked at import: otherwise the client asks Google itself, over another protocol, what kind of
# bucket it has to do with.
os.environ["GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT"] = "false"


class Store:
    """Objects by (bucket, name); what was asked for; how many downloads still fail or stall."""

    def __init__(self):
        self.objects: dict[tuple[str, str], bytes] = {}
        self.downloads: list[tuple[str, str | None]] = []
        self.failures = 0
        self.stall = 0.0
        self.page = 2  # objects per page of a listing, so that paging is tried

    def put(self, path, data):
        bucket, name = path.removeprefix("gs://").split("/", 1)
        self.objects[bucket, name] = data

    def delete(self, path):
        bucket, name = path.removeprefix("gs://").split("/", 1)
        del self.objects[bucket, name]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # or a body waits 40 ms for the answer to its head

    def do_GET(self):  # noqa: N802  the library's name
        address = urllib.parse.urlsplit(self.path)
        query = dict(urllib.parse.parse_qsl(address.query))
        parts = address.path.strip("/").split("/")
        download = parts[0] == "download"
        parts = parts[1:] if download else parts  # storage v1 b BUCKET o NAME
        bucket = parts[3] if len(parts) > 3 else ""
        if parts[:3] != ["storage", "v1", "b"] or bucket not in {b for b, _ in self.store.objects}:
            self.answer(404, b'{"error": {"code": 404, "message": "Not Found"}}')
        elif len(parts) == 4:
            self.answer_json({"kind": "storage#bucket", "name": bucket})
        elif len(parts) == 5:
            self.answer_json(self.listing(bucket, query))
        else:
            self.answer_object(bucket, urllib.parse.unquote("/".join(parts[5:])), download)

    def answer_object(self, bucket, name, download):
        data = self.store.objects.get((bucket, name))
        if data is None:
            return self.answer(404, b'{"error": {"code": 404, "message": "No such object"}}')
        if not download:
            return self.answer_json(self.metadata(bucket, name))
        wanted = self.headers.get("Range")
        self.store.downloads.append((name, wanted))
        time.sleep(self.store.stall)
        if self.store.failures:
            self.store.failures -= 1
            return self.answer(400, b'{"error": {"code": 400, "message": "out of order"}}')
        if wanted is None:
            return self.answer(200, data, ETag=f'"{hashlib.md5(data).hexdigest()}"')
        first, last = wanted.removeprefix("bytes=").split("-")
        if int(first) >= len(data):
            return self.answer(416, b"Requested range not satisfiable")
        return self.answer(206, data[int(first) : int(last) + 1 if last else None])

    def listing(self, bucket, query):
        prefix, delimiter = query.get("prefix", ""), query.get("delimiter")
        names, folders = [], set()
        for owner, name in sorted(self.store.objects):
            if owner != bucket or not name.startswith(prefix):
                continue
            rest = name[len(prefix) :]
            if delimiter and delimiter in rest:
                folders.add(prefix + rest.split(delimiter)[0] + delimiter)
            else:
                names.append(name)
        start = int(query.get("pageToken", 0))
        end = start + min(self.store.page, int(query.get("maxResults", 1000)))
        answer = {
            "kind": "storage#objects",
            "items": [self.metadata(bucket, name) for name in names[start:end]],
            "prefixes": sorted(folders) if not start else [],
        }
        return answer | ({"nextPageToken": str(end)} if end < len(names) else {})

    def metadata(self, bucket, name):
        data = self.store.objects[bucket, name]
        size = str(len(data))  # the API gives 64-bit numbers as text
        about = {"size": size, "md5Hash": base64.b64encode(hashlib.md5(data).digest()).decode()}
        return {"kind": "storage#object", "name": name, "bucket": bucket, **about}

    def answer_json(self, value):
        self.answer(200, json.dumps(value).encode())

    def answer(self, status, body, **headers):
        with contextlib.suppress(ConnectionError):  # a client that waits no longer
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    def log_message(self, *_):
        pass


@contextlib.contextmanager
def serving():
    """Serves an empty store at a free port of this machine, and points gcsfs at it."""
    import fsspec

    store = Store()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"store": store}))
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    address = f"http://127.0.0.1:{server.server_address[1]}"
    before = fsspec.config.conf.get("gs")
    fsspec.config.conf["gs"] = {"endpoint_url": address, "token": "anon"}
    try:
        yield store
    finally:
        fsspec.config.conf.pop("gs")
        if before is not None:
            fsspec.config.conf["gs"] = before
        server.shutdown()
        server.server_close()
