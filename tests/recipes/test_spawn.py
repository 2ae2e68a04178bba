"""multiprocessing with the start method spawn."""

from __future__ import annotations

from resumable_sync import ResumableStreamContext, Status, open_store

from ..support import PATIENCE
from .apps.spawn_app import export_elsewhere
from .support import Background, Place, waits_for


def test_a_child_that_exits_at_once_leaves_everything(place: Place) -> None:
    with open_store(place.streams) as store, ResumableStreamContext(store) as context:
        viewer = Background(lambda: b"".join(context.require_resume("rows", wait=PATIENCE)))
        waits_for(context, "rows")
        child = export_elsewhere(place.streams, "rows", 5000)
        child.join(PATIENCE)
        assert child.exitcode == 0
        child.close()
        assert context.status("rows") is Status.DONE
        assert viewer.result() == b"".join(b"row %d\n" % number for number in range(5000))
