"""A Flask site with WebSockets, by Flask-Sock: they echo."""

from flask import Flask
from flask_sock import Sock
from simple_websocket import Server

app = Flask(__name__)
app.config["SOCK_SERVER_OPTIONS"] = {"max_message_size": 65536}
sock = Sock(app)


@app.get("/")
def index() -> str:
    return "plain"


@sock.route("/echo")
def echo(ws: Server) -> None:
    while True:
        ws.send(ws.receive())


@sock.route("/once")
def once(ws: Server) -> None:
    ws.send(ws.receive())
