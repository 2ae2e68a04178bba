"""Django: a management command publishes, in a process of its own, and a view follows."""

from __future__ import annotations

from typing import Any

from ..support import PATIENCE
from .support import Background, Place, Site, need, waits_for

SETTINGS = "tests.recipes.apps.django_site.settings"


def test_a_view_follows_a_management_command(place: Place) -> None:
    need("django")
    with place.environment(DJANGO_SETTINGS_MODULE=SETTINGS):
        from django.core.wsgi import get_wsgi_application

        application = get_wsgi_application()
    streams = "django_site.answers.streams"
    with place.application("django_site.urls", context=streams, DJANGO_SETTINGS_MODULE=SETTINGS) as urls:
        context: Any = urls.context
        with Site(application) as site:
            viewer = Background(lambda: site.ask("GET", "/builds/b"))
            waits_for(context, "b")
            with place.process(
                "tests.recipes.apps.django_site.manage", "build", "b", "half", "PAUSE", "whole"
            ) as command:
                place.held()
                later = Background(lambda: site.ask("GET", "/builds/b"))
                place.release()
                assert command.until("b: ") == "done"
                assert command.wait(PATIENCE) == 0
            assert viewer.result() == later.result() == (200, b"half whole ")
            assert site.ask("GET", "/builds/b?after=" + context.info("b").cursor)[0] == 200
