"""Flask: answers as events, a download as raw bytes, and a handler that touches every response."""

from flask import Flask, request

from resumable_sync import ResumableStreamContext
from resumable_sync.wsgi import ViewerCap, resume_response, resume_sse_response, sse_response, stream_response


def words_of(question):
    yield from f"You asked: {question}".split(" ")


def create_app(store, words=words_of):
    app = Flask(__name__)
    context = app.context = ResumableStreamContext(store)
    viewers = app.viewers = ViewerCap(10)

    @app.post("/answers/<answer_id>")
    def start(answer_id):
        question = request.get_data(as_text=True)
        return sse_response(context, answer_id, lambda: words(question), viewers=viewers)

    @app.get("/answers/<answer_id>")
    def resume(answer_id):
        return resume_sse_response(context, answer_id, viewers=viewers)

    @app.post("/files/<file_id>")
    def make(file_id):
        lines = request.get_data(as_text=True)
        return stream_response(context, file_id, lambda: words(lines), content_type="text/plain", viewers=viewers)

    @app.get("/files/<file_id>")
    def download(file_id):
        return resume_response(context, file_id, viewers=viewers)

    @app.get("/page")
    def page():
        return "a page that is worth compressing. " * 100

    @app.after_request
    def touch(response):
        response.headers["X-Served-By"] = "touched"
        response.headers.setdefault("X-Streamed", str(response.is_streamed))
        response.set_cookie("seen", "yes")
        if not response.is_streamed:  # a stream has no ETag, and reading it here would hold it up to its end
            response.add_etag()
        return response

    return app
