"""Tasks and the app that runs them. The broker is a folder (kombu's filesystem transport), so no server is needed to try it."""

import time
from pathlib import Path

from celery import Celery

folder = Path("queue").absolute()
for name in ("messages", "control"):
    (folder / name).mkdir(parents=True, exist_ok=True)

app = Celery("tasks", broker="filesystem://")
app.conf.update(
    broker_transport_options={
        # Both ends look into one folder.
        "data_folder_in": str(folder / "messages"),
        "data_folder_out": str(folder / "messages"),
        "control_folder": str(folder / "control"),
        "polling_interval": 0.2,
    },
    broker_connection_retry_on_startup=True,
    task_acks_late=True,
    task_ignore_result=True,
    worker_prefetch_multiplier=1,
)


@app.task
def thumbnail(picture: str) -> None:
    time.sleep(0.2)
    print(f"thumbnail of {picture} made", flush=True)
