"""A Flask site: sessions, templates, uploads, streams, static files.

Its paths and answers are those of django_site, so that one test serves both.
"""

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

from flask import Flask, Response, jsonify, redirect, render_template, request, session
from werkzeug.wrappers import Response as AnyResponse

from tests.apps.gate import wait_at_gate

HERE = Path(__file__).parent

app = Flask(__name__, root_path=str(HERE))
app.secret_key = "not secret: a test's"


@app.get("/page")
def page() -> str:
    return render_template("page.html", title="Flask & friends", items=["one", "<two>"])


@app.post("/login")
def login() -> AnyResponse:
    session["name"] = request.form["name"]
    session["visits"] = 0
    return redirect("/visit")


@app.get("/visit")
def visit() -> Response:
    session["visits"] += 1
    return jsonify(name=session["name"], visits=session["visits"])


@app.get("/who")
def who() -> Response:
    wait_at_gate(request.args["gate"])
    return jsonify(name=session["name"], process=os.getpid())


@app.post("/upload")
def upload() -> Response:
    file = request.files["file"]
    data = file.read()
    return jsonify(
        name=file.filename,
        note=request.form["note"],
        size=len(data),
        digest=hashlib.sha256(data).hexdigest(),
    )


@app.post("/raw")
def raw() -> Response:
    data = request.get_data()
    return jsonify(size=len(data), digest=hashlib.sha256(data).hexdigest())


@app.get("/stream")
def stream() -> Response:
    def lines() -> Iterator[str]:
        for number in range(100):
            yield f"line {number}\n"

    return Response(lines(), mimetype="text/plain")


@app.get("/large")
def large() -> Response:
    return Response(bytes(range(256)) * 20_480, mimetype="application/octet-stream")


@app.get("/fail")
def fail() -> Response:
    raise RuntimeError("failed on purpose")
