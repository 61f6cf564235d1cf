"""A Django site in one module: sessions, templates, uploads, streams, static files.

Its paths and answers are those of flask_site, so that one test serves both.
"""

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import django
from django.conf import settings
from django.core.handlers.wsgi import WSGIHandler
from django.http import (
    HttpRequest,
    HttpResponse,
    HttpResponseBase,
    HttpResponseRedirect,
    JsonResponse,
    StreamingHttpResponse,
)
from django.shortcuts import render
from django.urls import path
from django.views.static import serve

from tests.apps.gate import wait_at_gate

HERE = Path(__file__).parent

settings.configure(
    ALLOWED_HOSTS=["*"],
    DATA_UPLOAD_MAX_MEMORY_SIZE=10_000_000,
    # Without DEBUG, Django would send errors by mail only.
    LOGGING={
        "version": 1,
        "disable_existing_loggers": False,
        "handlers": {"stderr": {"class": "logging.StreamHandler"}},
        "loggers": {"django": {"handlers": ["stderr"], "level": "ERROR"}},
    },
    MIDDLEWARE=[
        "django.middleware.security.SecurityMiddleware",
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.middleware.common.CommonMiddleware",
        "django.middleware.http.ConditionalGetMiddleware",
    ],
    ROOT_URLCONF=__name__,
    SECRET_KEY="not secret: a test's",
    SESSION_ENGINE="django.contrib.sessions.backends.signed_cookies",
    TEMPLATES=[
        {
            "BACKEND": "django.template.backends.django.DjangoTemplates",
            "DIRS": [HERE / "templates"],
        }
    ],
    USE_TZ=True,
)


def page(request: HttpRequest) -> HttpResponse:
    return render(request, "page.html", {"title": "Django & friends", "items": ["one", "<two>"]})


def login(request: HttpRequest) -> HttpResponse:
    request.session["name"] = request.POST["name"]
    request.session["visits"] = 0
    return HttpResponseRedirect("/visit")


def visit(request: HttpRequest) -> HttpResponse:
    request.session["visits"] += 1
    return JsonResponse({"name": request.session["name"], "visits": request.session["visits"]})


def who(request: HttpRequest) -> HttpResponse:
    wait_at_gate(request.GET["gate"])
    return JsonResponse({"name": request.session["name"], "process": os.getpid()})


def upload(request: HttpRequest) -> HttpResponse:
    file = request.FILES["file"]
    data = file.read()
    return JsonResponse(
        {
            "name": file.name,
            "note": request.POST["note"],
            "size": len(data),
            "digest": hashlib.sha256(data).hexdigest(),
        }
    )


def raw(request: HttpRequest) -> HttpResponse:
    data = request.body
    return JsonResponse({"size": len(data), "digest": hashlib.sha256(data).hexdigest()})


def stream(request: HttpRequest) -> HttpResponseBase:
    def lines() -> Iterator[str]:
        for number in range(100):
            yield f"line {number}\n"

    return StreamingHttpResponse(lines(), content_type="text/plain")


def large(request: HttpRequest) -> HttpResponse:
    return HttpResponse(bytes(range(256)) * 20_480, content_type="application/octet-stream")


def fail(request: HttpRequest) -> HttpResponse:
    raise RuntimeError("failed on purpose")


urlpatterns = [
    path("page", page),
    path("login", login),
    path("visit", visit),
    path("who", who),
    path("upload", upload),
    path("raw", raw),
    path("stream", stream),
    path("large", large),
    path("fail", fail),
    path("static/<path:path>", serve, {"document_root": HERE / "static"}),
]

django.setup()
app = WSGIHandler()
