"""kombu, and so Celery's `broker_url`: URLs with `;` between. Its producer and its consumer mixin
connect again by themselves."""
import sys
import threading

import kombu
from kombu.mixins import ConsumerMixin

from counting import Count

URL = ";".join(f"amqp://guest:guest@127.0.0.1:{port}//" for port in sys.argv[1:])
QUEUE = kombu.Queue("failover.kombu", durable=True)
RETRY = {"max_retries": 500, "interval_start": 0, "interval_step": 0.02, "interval_max": 0.1}
count = Count()


def connection():
    return kombu.Connection(URL, failover_strategy="round-robin", heartbeat=5, connect_timeout=2,
                            transport_options={"confirm_publish": True})


class Consumer(ConsumerMixin):
    connect_max_retries = None

    def __init__(self):
        self.connection = connection()

    def get_consumers(self, Consumer, channel):
        return [Consumer([QUEUE], callbacks=[self.take], prefetch_count=50)]

    def take(self, body, message):
        message.ack()
        self.should_stop = count.take(body)


def publish(producer):
    def one(body):
        producer.publish(body, routing_key=QUEUE.name, declare=[QUEUE], delivery_mode=2, retry=True,
                         retry_policy=RETRY)
    return one


consumer = Consumer()
thread = threading.Thread(target=consumer.run)
thread.start()
with connection() as own:
    count.publish_all(publish(own.Producer()), (kombu.exceptions.OperationalError, OSError))
thread.join()
count.report()
