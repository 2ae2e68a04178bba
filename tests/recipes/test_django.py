"""Django under WSGI: views, a management command in a process of its own, middleware and the test client."""

from __future__ import annotations

import http.client
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest

from resumable_sync import sse

from ..support import PATIENCE, wait_until
from .support import Background, Place, Site, need, waits_for

SETTINGS = "tests.recipes.apps.django_site.settings"
WHOLE = b"".join(b"row %d\n" % number for number in range(1000))


class Project(NamedTuple):
    urls: Any
    context: Any
    application: Any


@pytest.fixture
def project(place: Place) -> Iterator[Project]:
    need("django")
    from django.urls import clear_url_caches

    with place.environment(DJANGO_SETTINGS_MODULE=SETTINGS):
        from django.core.wsgi import get_wsgi_application

        application = get_wsgi_application()
    streams = "django_site.answers.streams"
    with place.application("django_site.urls", context=streams, DJANGO_SETTINGS_MODULE=SETTINGS) as urls:
        clear_url_caches()  # those of a test before
        yield Project(urls, urls.context, application)


@pytest.fixture
def client(project: Project) -> Any:
    from django.test import Client

    return Client()


def test_a_view_follows_a_management_command(project: Project, place: Place) -> None:
    with Site(project.application) as site:
        viewer = Background(lambda: site.ask("GET", "/builds/b"))
        waits_for(project.context, "b")
        with place.process(
            "tests.recipes.apps.django_site.manage", "build", "b", "half", "PAUSE", "whole"
        ) as command:
            place.held()
            later = Background(lambda: site.ask("GET", "/builds/b"))
            place.release()
            assert command.until("b: ") == "done"
            assert command.wait(PATIENCE) == 0
        assert viewer.result() == later.result() == (200, b"half whole ")
        assert site.ask("GET", "/builds/b?after=" + project.context.info("b").cursor)[0] == 200


def test_middleware_leaves_streams_alone(project: Project, place: Place) -> None:
    """GZipMiddleware, which compresses the page, holds back no event; ConditionalGetMiddleware reads none."""
    with Site(project.application) as site, place.environment():
        connection = http.client.HTTPConnection("127.0.0.1", site.port, timeout=PATIENCE)
        asked = {"Accept-Encoding": "gzip"}
        connection.request("GET", "/page", headers=asked)
        page = connection.getresponse()
        assert page.headers["Content-Encoding"] == "gzip" and page.headers["ETag"]
        page.read()
        connection.request("POST", "/answers/a", "half PAUSE whole", headers=asked)
        response = connection.getresponse()
        assert response.headers["Content-Encoding"] == "identity" and response.headers["ETag"] is None
        begun = b""
        while b"half " not in begun:  # the model pauses: what was held back would never come
            begun += response.read1()
        place.held()
        place.release()
        events = list(sse.parse_events([begun + response.read()]))
        connection.close()
    assert [each.data for each in events if each.event == "message"] == ["half ", "whole "]
    assert events[-1].event == "end" and '"done"' in events[-1].data


def test_an_export_has_parts(project: Project, client: Any) -> None:
    whole = client.get("/exports/e", headers={"accept-encoding": "gzip"})
    assert whole.streaming and whole.headers["Content-Type"] == "text/csv"
    assert b"".join(whole.streaming_content) == WHOLE
    part = client.get("/exports/e", headers={"range": "bytes=4-9", "accept-encoding": "gzip"})
    assert part.status_code == 206 and b"".join(part.streaming_content) == WHOLE[4:10]
    assert part.headers["Content-Range"] == f"bytes 4-9/{len(WHOLE)}" and part.headers["Content-Length"] == "6"
    tag = part.headers["ETag"]
    rest = client.get("/exports/e", headers={"range": "bytes=100-", "if-range": tag})
    assert rest.status_code == 206 and b"".join(rest.streaming_content) == WHOLE[100:]
    changed = client.get("/exports/e", headers={"range": "bytes=100-", "if-range": '"another"'})
    assert changed.status_code == 200 and b"".join(changed.streaming_content) == WHOLE
    assert client.get("/exports/e", headers={"if-none-match": tag}).status_code == 304
    assert client.get("/exports/e", headers={"range": f"bytes={len(WHOLE)}-"}).status_code == 416
    head = client.head("/exports/e")
    assert (head.headers["Content-Length"], head.headers["ETag"]) == (str(len(WHOLE)), tag)
    assert project.urls.viewers.viewers == 0


def test_the_test_client_closes_early(project: Project, client: Any, place: Place) -> None:
    with place.environment():
        response = client.post("/answers/a", "half PAUSE whole", content_type="text/plain")
        pieces = iter(response.streaming_content)
        while b"half " not in next(pieces):
            pass
        place.held()
        assert project.urls.viewers.viewers == 1
        response.close()
        assert project.urls.viewers.viewers == 0 and project.context.status("a") == "streaming"
        place.release()
        wait_until(lambda: project.context.status("a") == "done")
    body = b"".join(client.get("/answers/a").streaming_content)
    assert b"data: half " in body and b"data: whole " in body
    assert client.get("/answers/none").status_code == 404
