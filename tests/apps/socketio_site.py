"""A Flask site with Flask-SocketIO on threads: it echoes."""

from flask import Flask
from flask_socketio import SocketIO, emit

app = Flask(__name__)
events = SocketIO(app, async_mode="threading")


@app.get("/")
def index() -> str:
    return "plain"


@events.on("message")
def message(text: str) -> None:
    emit("echo", text)
