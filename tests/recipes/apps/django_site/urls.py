"""GET /builds/build-42 follows it."""

from django.http import StreamingHttpResponse
from django.urls import path

from resumable_sync.wsgi import resume_response

from .answers.streams import context


def follow(request, build_id):
    r = resume_response(context, build_id, wait=30, environ=request.META)
    return StreamingHttpResponse(r, status=r.status_code, headers=dict(r.headers))


urlpatterns = [path("builds/<build_id>", follow)]
