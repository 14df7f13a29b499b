"""A plain HTTP/1.1 origin for the outside suites: every request gets 200 and a short text."""

import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

# h2spec sets windows of a few bytes and looks at how the body is cut: it must be longer than they are.
BODY = b"Sluice's conformance origin says the same thing to everybody.\n"


class Answer(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # A head and its body in one packet, whatever the suites measure.
    wbufsize = 64 * 1024

    def answer(self):
        length = int(self.headers.get("Content-Length") or 0)
        while length > 0:
            read = self.rfile.read(min(length, 64 * 1024))
            if not read:
                return
            length -= len(read)
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            self.skip_chunks()
        self.send_response(200)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Content-Length", str(len(BODY)))
        # What 0-RTT arrived as (RFC 8470 section 5.1), for the TLS suite to see.
        self.send_header("X-Early-Data", self.headers.get("Early-Data", "none"))
        # The origin's to say, and the TLS scans look for them.
        self.send_header("Strict-Transport-Security", "max-age=31536000; includeSubDomains")
        self.send_header("Content-Security-Policy", "default-src 'none'")
        self.send_header("X-Frame-Options", "DENY")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(BODY)

    def skip_chunks(self):
        while True:
            size = int(self.rfile.readline().strip() or b"0", 16)
            if size == 0:
                break
            self.rfile.read(size + 2)
        while self.rfile.readline().strip():
            pass

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = do_OPTIONS = do_PATCH = answer

    def log_message(self, *_):
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 512


Server(("127.0.0.1", int(sys.argv[1])), Answer).serve_forever()
