"""For servers that import an application: made as the module is imported."""

from __future__ import annotations

from resumable_sync.wsgi import close_on_sigterm

from .application import from_environment

application = from_environment()
close_on_sigterm(application.context)
