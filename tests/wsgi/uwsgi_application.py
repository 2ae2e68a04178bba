"""The application of the deploys under uWSGI, with what README recommends for that."""

from __future__ import annotations

import os

from resumable_sync.wsgi import close_with_uwsgi

from .deploy_application import from_environment

application = from_environment()
close_with_uwsgi(application.context, drain=float(os.environ["TEST_DRAIN"]))
