"""What Celery's worker runs in `celery_suite.py`: a task that fails twice, a chord, one that counts."""
import os

from celery import Celery

PORTS = os.environ["UNDERSTUDY_PORTS"].split(",")
RESULTS = os.environ["UNDERSTUDY_RESULTS"]

app = Celery(
    "interop",
    broker=[f"amqp://guest:guest@127.0.0.1:{port}//" for port in PORTS],
    backend=f"file://{RESULTS}",
)
app.conf.update(
    broker_transport_options={"confirm_publish": True},
    broker_connection_retry_on_startup=True,
    broker_connection_max_retries=None,
    broker_connection_timeout=5,
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    task_default_queue="interop.celery",
    worker_prefetch_multiplier=4,
    result_chord_retry_interval=0.1,
)


@app.task(bind=True, max_retries=5)
def fails_twice(self, number):
    if self.request.retries < 2:
        raise self.retry(countdown=0.1)
    return number + self.request.retries


@app.task
def add(one, two):
    return one + two


@app.task
def total(numbers):
    return sum(numbers)


@app.task
def mark(number):
    """One file for each run, so that lost and doubled tasks can be counted."""
    with open(os.path.join(RESULTS, "marks"), "a", encoding="ascii") as marks:
        marks.write(f"{number}\n")
