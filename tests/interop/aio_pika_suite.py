"""aio-pika against a pair: arguments are the AMQP ports of both nodes, sitting master first.

Prints KILL when the master may be killed, and a JSON object at the end. aio-pika takes one URL,
so the suite goes through the list itself, as applications without a proxy do.
"""
import asyncio
import json
import sys
import time

import aio_pika

PORTS = [int(port) for port in sys.argv[1:]]
COUNT = 600
LOST = (aio_pika.exceptions.AMQPError, ConnectionError, OSError, asyncio.TimeoutError)


async def connect():
    deadline = time.monotonic() + 60
    while True:
        for port in PORTS:
            try:
                return await aio_pika.connect(f"amqp://guest:guest@127.0.0.1:{port}/", timeout=5)
            except LOST:
                if time.monotonic() > deadline:
                    raise
        await asyncio.sleep(0.01)


async def topics_and_returns():
    async with await connect() as connection:
        channel = await connection.channel(publisher_confirms=True, on_return_raises=True)
        topic = await channel.declare_exchange("interop.aio", aio_pika.ExchangeType.TOPIC, durable=True)
        queue = await channel.declare_queue(exclusive=True)
        await queue.bind(topic, "a.#")
        headers = {"n": 1, "text": "t", "deep": {"list": [1, 2]}}
        await topic.publish(aio_pika.Message(b"one", headers=headers, expiration=60), "a.b")
        message = await queue.get(timeout=30)
        assert (message.body, message.headers, message.expiration) == (b"one", headers, 60), message
        await message.nack(requeue=True)
        message = await queue.get(timeout=30)
        assert message.redelivered
        await message.ack()
        assert await queue.get(fail=False) is None
        try:
            await topic.publish(aio_pika.Message(b"x"), "nobody", mandatory=True)
            raise SystemExit("an unroutable message was not returned")
        except aio_pika.exceptions.PublishError:
            pass
        try:
            await channel.get_queue("interop.missing", ensure=True)
            raise SystemExit("a missing queue was found")
        except aio_pika.exceptions.ChannelNotFoundEntity:
            pass


async def transactions_and_prefetch():
    async with await connect() as connection:
        channel = await connection.channel(publisher_confirms=False)
        queue = await channel.declare_queue(exclusive=True)
        async with channel.transaction():
            for number in range(5):
                body = aio_pika.Message(str(number).encode())
                await channel.default_exchange.publish(body, queue.name)
        channel = await connection.channel()
        await channel.set_qos(prefetch_count=2)
        queue = await channel.get_queue(queue.name)
        got = []
        async with queue.iterator() as messages:
            async for message in messages:
                async with message.process():
                    got.append(message.body)
                if len(got) == 5:
                    break
        assert got == [b"0", b"1", b"2", b"3", b"4"], got


async def rpc():
    """The pattern of aio-pika's users: a call through a queue, answered by reply_to."""
    async with await connect() as connection:
        channel = await connection.channel()
        server = await aio_pika.patterns.RPC.create(channel)

        async def double(*, number):
            return number * 2
        await server.register("interop.double", double, auto_delete=True)
        assert await server.call("interop.double", kwargs={"number": 21}) == 42
        await server.close()


async def publish_through_takeover(name):
    number, confirmed, connection = 0, 0, None
    while number < COUNT:
        try:
            if connection is None:
                connection = await connect()
                channel = await connection.channel()
                await channel.declare_queue(name, durable=True)
            body = aio_pika.Message(str(number).encode(), delivery_mode=2)
            await channel.default_exchange.publish(body, name, timeout=10)
            confirmed += 1
            number += 1
            if number == COUNT // 2:
                print("KILL", flush=True)
        except LOST:
            connection = None
    await connection.close()
    return confirmed


async def drain(name):
    received = []
    async with await connect() as connection:
        channel = await connection.channel()
        queue = await channel.declare_queue(name, durable=True)
        while (message := await queue.get(fail=False)) is not None:
            received.append(int(message.body))
            await message.ack()
    return received


async def main():
    await topics_and_returns()
    await transactions_and_prefetch()
    await rpc()
    confirmed = await publish_through_takeover("interop.aio.failover")
    received = await drain("interop.aio.failover")
    print(json.dumps({"confirmed": confirmed, "received": len(received),
                      "lost": sorted(set(range(COUNT)) - set(received)),
                      "duplicates": len(received) - len(set(received))}), flush=True)


asyncio.run(main())
