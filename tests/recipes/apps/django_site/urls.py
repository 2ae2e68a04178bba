"""GET /builds/build-42 follows what the command publishes; /answers/ID as events; /exports/ID, to download."""

from django.http import HttpResponse, StreamingHttpResponse
from django.urls import path

from resumable_sync.wsgi import ViewerCap, resume_response, resume_sse_response, sse_response, stream_response

from ..model import model_tokens
from .answers.streams import context

viewers = ViewerCap(10)


def streamed(r):
    return StreamingHttpResponse(r, status=r.status_code, headers=dict(r.headers))


def follow(request, build_id):
    return streamed(resume_response(context, build_id, wait=30, environ=request.META))


def answer(request, answer_id):
    options = {"viewers": viewers, "environ": request.META}
    if request.method == "POST":
        question = request.body.decode()
        return streamed(sse_response(context, answer_id, lambda: model_tokens(question), **options))
    return streamed(resume_sse_response(context, answer_id, **options))


def export(request, export_id):
    """GET begins it, too: a link to click, which a browser's download goes on with by a Range."""
    rows = (f"row {number}\n" for number in range(1000))
    return streamed(
        stream_response(
            context,
            export_id,
            lambda: rows,
            content_type="text/csv",
            headers={"Content-Disposition": "attachment; filename=rows.csv"},
            viewers=viewers,
            environ=request.META,
        )
    )


def page(request):
    return HttpResponse("a page that is worth compressing. " * 100)


urlpatterns = [
    path("builds/<build_id>", follow),
    path("answers/<answer_id>", answer),
    path("exports/<export_id>", export),
    path("page", page),
]
