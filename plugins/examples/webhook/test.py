#!/usr/bin/env python3
"""Runs the plugin against a server that fails, delays and repeats, under the conformance suite: test.py CONFORMANCE_BINARY"""
import http.server
import json
import pathlib
import subprocess
import sys
import tempfile
import threading
import time

HERE = pathlib.Path(__file__).resolve().parent
PROTO = HERE.parents[1] / "proto/proto/ferrocast/announcer/v1alpha1"


class Provider(http.server.BaseHTTPRequestHandler):
    """A provider's route API with bad days: every fifth request fails, every seventh is slow, every ninth is done but not answered."""

    lock, state, etag, seen, keys, stale = threading.Lock(), {"announcements": []}, 0, 0, {}, 0

    def do_PUT(self):
        cls = Provider
        body = self.rfile.read(int(self.headers["Content-Length"]))
        with cls.lock:
            cls.seen += 1
            turn = cls.seen
        if turn % 7 == 0:
            time.sleep(0.05)
        if turn % 5 == 0:
            return self.answer(503)
        with cls.lock:
            key = self.headers["Idempotency-Key"]
            if key != cls.keys.get("last"):
                if self.headers["If-Match"] not in (None, str(cls.etag)):
                    cls.stale += 1
                    return self.answer(412)
                cls.keys["last"], cls.state = key, json.loads(body)
                cls.etag += 1
        if turn % 9 == 0:
            self.close_connection = True
            return None
        return self.answer(204)

    def do_GET(self):
        lines = "".join(
            f"{a['prefix']}{' draining' if a['state'] == 'draining' else ''}\n" for a in Provider.state["announcements"]
        ).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(lines)))
        self.end_headers()
        self.wfile.write(lines)

    def answer(self, code):
        self.send_response(code)
        self.send_header("ETag", str(Provider.etag))
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


def main():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Provider)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}/nodes/conformance"
    with tempfile.TemporaryDirectory() as directory:
        subprocess.run(["protoc", f"-I{PROTO}", f"--python_out={directory}", "announcer.proto"], check=True)
        socket = pathlib.Path(directory, "webhook.sock")
        plugin = subprocess.Popen([sys.executable, HERE / "webhook.py", "--socket", socket, "--url", url,
                                   "--generated", directory])
        try:
            suite = subprocess.run([sys.argv[1], "--socket", socket, "--probe", f"curl -sf {url}", "--settle", "600"])
        finally:
            plugin.terminate()
            plugin.wait(10)
    print(f"{Provider.seen} requests, {Provider.stale} of them with a stale ETag")
    assert Provider.seen > 30, "the server was hardly asked"
    sys.exit(suite.returncode)


if __name__ == "__main__":
    main()
