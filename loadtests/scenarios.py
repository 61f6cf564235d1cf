"""Load for the demo application (`poolsrv.demo:application`, what `make serve` serves).

    locust -f loadtests/                          every scenario, in equal shares
    locust -f loadtests/ Hello Upload             these two
    locust -f loadtests/ Mixed --tags hello io    the mix without its other parts

    locust -f loadtests/ Hello --user-rate 50     an open loop: 50 requests a second and user
    locust -f loadtests/ --class-picker           choose scenarios in the web interface

Each user is a closed loop on one kept-alive connection: it asks again as
soon as it has the answer. With --user-rate it asks at that rate, as long as
the answers come faster: so have users enough. --spawn-rate is the ramp.
"""

import hashlib

from locust import FastHttpUser, constant_throughput, tag

UPLOAD = bytes(range(256)) * 256  # 64 KiB
DIGEST = hashlib.sha256(UPLOAD).hexdigest()


@tag("hello")
def hello(user: FastHttpUser) -> None:
    user.client.get("/hello")


@tag("json")
def document(user: FastHttpUser) -> None:
    with user.client.get("/json", catch_response=True) as response:
        if response.status_code == 200 and not response.headers["Content-Type"].startswith(
            "application/json"
        ):
            response.failure("not JSON")


@tag("io")
def wait(user: FastHttpUser) -> None:
    user.client.get("/sleep?seconds=0.01", name="/sleep")


@tag("cpu")
def compute(user: FastHttpUser) -> None:
    user.client.get("/cpu?milliseconds=1", name="/cpu")


@tag("upload")
def upload(user: FastHttpUser) -> None:
    with user.client.post("/upload", data=UPLOAD, catch_response=True) as response:
        if response.status_code == 200 and response.json()["sha256"] != DIGEST:
            response.failure("the body did not arrive as it was sent")


class Scenario(FastHttpUser):
    abstract = True
    host = "http://127.0.0.1:8000"  # the default; --host says otherwise

    def wait_time(self) -> float:
        rate = self.environment.parsed_options.user_rate
        return constant_throughput(rate)(self) if rate else 0.0


class Hello(Scenario):
    tasks = [hello]  # noqa: RUF012 - locust's own way to say it


class Json(Scenario):
    tasks = [document]  # noqa: RUF012


class IoBound(Scenario):
    tasks = [wait]  # noqa: RUF012


class CpuBound(Scenario):
    tasks = [compute]  # noqa: RUF012


class Upload(Scenario):
    tasks = [upload]  # noqa: RUF012


class Mixed(Scenario):
    """Shares in percent, as a site with some slow pages has them."""

    tasks = {hello: 60, document: 20, wait: 10, compute: 5, upload: 5}  # noqa: RUF012
