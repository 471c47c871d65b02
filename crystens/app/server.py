"""The server of the page: it answers this machine and nobody else.

Other pages in the same browser cannot use it: the name that a request asks for must be this machine's, and a form must
bring the token of this server back. A request is bounded in size. No answer holds a traceback or a path; what fails by
a defect of crystens is told on the terminal.
"""

from __future__ import annotations

import hmac
import logging
import secrets
import socket
import webbrowser
from collections.abc import Mapping
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import parse_qsl

import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from crystens.app.answer import Answer, Progress, answer
from crystens.app.asked import Asked, read_form
from crystens.app.jobs import DEFECT, Job, Jobs
from crystens.app.page import Site, job_page, progress, question_page
from crystens.errors import CrystensError
from crystens.generator import Generator

log = logging.getLogger(__name__)

HOST = "127.0.0.1"
MOST_BYTES = 16_384  # of a form
_MOST_FIELDS = 64
_HEADERS = {
    "Cache-Control": "no-store",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
_STRANGE = "this page was made before `crystens app` was started again: ask once more"
_UNKNOWN = "there is no such page, or its answer is no longer kept: ask again"


def application(models: Mapping[str, Generator]) -> Starlette:
    """Return the server of some models, by their names on the page; it answers in a thread until it is shut down."""

    def work(asked: Asked, report: Progress) -> Answer:
        return answer(models[asked.model], asked, report)

    site = Site(models, Jobs(work), secrets.token_urlsafe(18))
    pages = _Pages(site)

    @asynccontextmanager
    async def running(app: Starlette) -> Any:
        yield
        site.jobs.close()

    return Starlette(
        routes=[
            Route("/", pages.home),
            Route("/ask", pages.ask, methods=["POST"]),
            Route("/jobs/{name}", pages.job),
            Route("/jobs/{name}/state", pages.state),
            Route("/jobs/{name}/stop", pages.stop, methods=["POST"]),
            Route("/jobs/{name}/crystals.zip", pages.zipped),
            Route("/jobs/{name}/cifs/{index:int}.cif", pages.cif),
        ],
        middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=[HOST, "localhost"], www_redirect=False)],
        exception_handlers={HTTPException: pages.refused, Exception: pages.broken},
        lifespan=running,
    )


class _Pages:
    """The handlers of requests."""

    def __init__(self, site: Site) -> None:
        self.site = site

    def home(self, request: Request) -> Response:
        """Answer with an empty form."""
        return _html(question_page(self.site, {"model": request.query_params.get("model", "")}))

    async def ask(self, request: Request) -> Response:
        """Take a question, and lead to its job; a bad one is answered here."""
        form = await _form(request)
        if not self._is_ours(form):
            return _html(question_page(self.site, form, _STRANGE), 403)
        try:
            job = self.site.jobs.add(read_form(form, self.site.models))
        except CrystensError as error:
            return _html(question_page(self.site, form, str(error)), 422)
        return RedirectResponse(f"/jobs/{job.name}#job", 303, _HEADERS)

    def job(self, request: Request) -> Response:
        """Answer with the page of a job."""
        return _html(job_page(self.site, self._job(request)))

    def state(self, request: Request) -> Response:
        """Answer with how far a job is."""
        return JSONResponse(progress(self.site.jobs, self._job(request)), headers=_HEADERS)

    async def stop(self, request: Request) -> Response:
        """Stop a job, and lead back to it."""
        form = await _form(request)
        if not self._is_ours(form):
            return _html(question_page(self.site, {}, _STRANGE), 403)
        job = self._job(request)
        self.site.jobs.stop(job)
        return RedirectResponse(f"/jobs/{job.name}#job", 303, _HEADERS)

    def zipped(self, request: Request) -> Response:
        """Answer with all CIFs of a job."""
        found = self._job(request).answer
        if found is None:
            raise HTTPException(404)
        return _file(found.zipped(), "application/zip", "crystals.zip")

    def cif(self, request: Request) -> Response:
        """Answer with one CIF of a job."""
        found = self._job(request).answer
        sample = None if found is None else found.sample(request.path_params["index"])
        if sample is None:
            raise HTTPException(404)
        return _file(sample.cif.encode(), "chemical/x-cif", f"{sample.row['formula']}_{sample.name}")

    def refused(self, request: Request, error: Exception) -> Response:
        """Answer what is not there, or not allowed."""
        status = error.status_code if isinstance(error, HTTPException) else 404
        text = _UNKNOWN if status in (404, 405) else str(getattr(error, "detail", _UNKNOWN))
        return _html(question_page(self.site, {}, text), status)

    def broken(self, request: Request, error: Exception) -> Response:
        """Answer where crystens fails; the server writes the traceback to the terminal."""
        return _html(question_page(self.site, {}, DEFECT), 500)

    def _job(self, request: Request) -> Job:
        """Return the job that a request names."""
        job = self.site.jobs.find(request.path_params["name"])
        if job is None:
            raise HTTPException(404)
        return job

    def _is_ours(self, form: Mapping[str, str]) -> bool:
        """Return whether a form comes from a page of this server."""
        return hmac.compare_digest(form.get("token", "").encode(), self.site.token.encode())


async def _form(request: Request) -> dict[str, str]:
    """Return the fields of a form."""
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > MOST_BYTES:
            raise HTTPException(413, f"the form has more than {MOST_BYTES:,} bytes")
    try:
        return dict(parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=_MOST_FIELDS))
    except ValueError as error:
        raise HTTPException(400, "the form cannot be read") from error


def _html(text: str, status: int = 200) -> HTMLResponse:
    """Return a page."""
    return HTMLResponse(text, status, _HEADERS)


def _file(content: bytes, kind: str, name: str) -> Response:
    """Return a file that the browser saves."""
    return Response(content, 200, _HEADERS | {"Content-Disposition": f'attachment; filename="{name}"'}, kind)


def serve(models: Mapping[str, Generator], port: int, browser: bool) -> None:
    """Serve the page until Ctrl-C.

    Args:
        models: by their names on the page.
        port: of this machine; 0 takes a free one.
        browser: whether to open the page in the browser.

    Raises:
        CrystensError: if the port is taken.
    """
    with socket.socket() as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((HOST, port))
        except OSError as error:
            raise CrystensError(f"port {port} cannot be used: {error.strerror}; give another one by --port") from error
        address = f"http://{HOST}:{listening.getsockname()[1]}"
        config = uvicorn.Config(
            application(models),
            log_level="warning",
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=2,
            ws="none",
        )
        listening.listen()
        print(f"{address} is open on this machine; Ctrl-C ends it", flush=True)
        if browser:
            webbrowser.open(address)
        uvicorn.Server(config).run(sockets=[listening])
