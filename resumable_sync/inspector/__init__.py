"""A page for operators: which streams there are, how they stand, what they say live; cancel and delete.

    from resumable_sync.inspector import Inspector

    def authorize(environ, action, stream_id):          # action: "list", "view", "follow", "cancel" or "delete"
        return user_of(environ).is_operator

    app.wsgi_app = DispatcherMiddleware(app.wsgi_app, {"/streams": Inspector(context, authorize=authorize)})

It is a WSGI application that needs nothing but its context; `DispatcherMiddleware` is werkzeug's, and any other
way to mount an application below a prefix does as well.
"""

from .application import Action, Authorize, Inspector

__all__ = ["Action", "Authorize", "Inspector"]
