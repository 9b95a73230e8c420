"""pika: a list of parameters, in order, for each connection; the loop around it is the program's."""
import sys
import threading
import time

import pika

from counting import Count

NODES = [pika.ConnectionParameters("127.0.0.1", int(port), connection_attempts=1, socket_timeout=2,
                                   stack_timeout=3, heartbeat=5) for port in sys.argv[1:]]
QUEUE = "failover.pika"
LOST = (pika.exceptions.AMQPError, OSError)
count = Count()


def connect():
    while True:
        try:
            return pika.BlockingConnection(NODES)
        except LOST:
            time.sleep(0.02)


class Publisher:
    channel = None

    def publish(self, body):
        try:
            if self.channel is None:
                self.channel = connect().channel()
                self.channel.confirm_delivery()
                self.channel.queue_declare(QUEUE, durable=True)
            self.channel.basic_publish("", QUEUE, body.encode(), pika.BasicProperties(delivery_mode=2))
        except LOST:
            self.channel = None
            raise


def consume():
    while not count.is_complete():
        try:
            channel = connect().channel()
            channel.queue_declare(QUEUE, durable=True)
            channel.basic_qos(prefetch_count=50)
            for method, _, body in channel.consume(QUEUE, inactivity_timeout=1):
                if method is not None:
                    channel.basic_ack(method.delivery_tag)
                    if count.take(body):
                        return channel.connection.close()
        except LOST:
            pass


consumer = threading.Thread(target=consume)
consumer.start()
count.publish_all(Publisher().publish, LOST)
consumer.join()
count.report()
