"""An S3 on this machine, moto's, as a process: `python s3_server.py [FLAG]`. Its port is the first line of the output.

While there is a file FLAG it answers nothing but 503, and adds a byte to the file each time.

What a bucket is called says what is wrong with it: `forgetful` overwrites whatever it is asked, `readonly` refuses to
write, `down` answers nothing but 503, `lossy` takes the first request to write a key and loses its answer.
"""

import logging
import os
import sys

BUCKETS = ("place", "forgetful", "readonly", "down", "lossy")
os.environ["MOTO_S3_DEFAULT_MAX_KEYS"] = "10"  # of a page


def faulty(app, lost):
    """The server, with its faults."""

    def answer(environ, start_response):
        bucket, _, key = environ["PATH_INFO"].lstrip("/").partition("/")
        method = environ["REQUEST_METHOD"]
        writes = method == "POST" or (key and method in ("PUT", "DELETE"))
        if any(map(noted, sys.argv[1:2])) or (bucket == "down" and (key or environ["QUERY_STRING"])):
            return refused(start_response, "503 Service Unavailable", "SlowDown")
        if bucket == "readonly" and writes:
            return refused(start_response, "403 Forbidden", "AccessDenied")
        if bucket == "forgetful":
            environ.pop("HTTP_IF_NONE_MATCH", None)
        answered = app(environ, start_response)
        if bucket == "lossy" and writes and environ["PATH_INFO"] not in lost:
            lost.add(environ["PATH_INFO"])
            list(answered)
            return refused(start_response, "500 Internal Server Error", "InternalError")
        return answered

    return answer


def noted(flag):
    """Whether there is this file; it is longer then."""
    try:
        file = os.open(flag, os.O_WRONLY | os.O_APPEND)
    except FileNotFoundError:
        return False
    os.write(file, b".")
    os.close(file)
    return True


def refused(start_response, status, code):
    start_response(status, [("Content-Type", "application/xml")], sys.exc_info() or None)
    return [f"<Error><Code>{code}</Code><Message>no</Message></Error>".encode()]


def serve():
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import make_server

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = make_server("127.0.0.1", 0, faulty(DomainDispatcherApplication(create_backend_app), set()), threaded=True)
    sys.stdout.write(f"{server.server_port}\n")
    sys.stdout.flush()
    server.serve_forever()


if __name__ == "__main__":
    serve()
