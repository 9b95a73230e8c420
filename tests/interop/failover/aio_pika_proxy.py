"""aio-pika takes one URL, here HAProxy's: its robust connection makes itself and its consumers anew."""
import asyncio
import sys

import aio_pika

from counting import PATIENCE_S, Count

URL = f"amqp://guest:guest@127.0.0.1:{sys.argv[1]}/?heartbeat=5"
QUEUE = "failover.aio_pika"
LOST = (aio_pika.exceptions.AMQPError, ConnectionError, RuntimeError, asyncio.TimeoutError)


async def main():
    count, complete = Count(), asyncio.Event()
    # Its own tasks complain while there is no connection, and try again.
    asyncio.get_running_loop().set_exception_handler(lambda *_: None)

    async def take(message):
        try:
            await message.ack()
        except LOST:
            pass
        if count.take(message.body):
            complete.set()

    connection = await aio_pika.connect_robust(URL, reconnect_interval=0.1, timeout=5)
    channel = await connection.channel()
    await channel.set_qos(prefetch_count=50)
    queue = await channel.declare_queue(QUEUE, durable=True)
    await queue.consume(take)
    publisher = await connection.channel()
    for number in count.numbers():
        message = aio_pika.Message(str(number).encode(), delivery_mode=2)
        while True:
            count.sent += 1
            try:
                # A confirm that died with its connection does not come.
                await publisher.default_exchange.publish(message, QUEUE, timeout=2)
                break
            except LOST:
                await asyncio.sleep(0.02)
        count.confirm()
    try:
        await asyncio.wait_for(complete.wait(), PATIENCE_S)
    except asyncio.TimeoutError:
        pass
    await connection.close()
    count.report()


asyncio.run(main())
