// amqp-connection-manager: a list of URLs, gone through by itself; its setup functions run on each
// new connection, and what was not confirmed is published again.
const manager = require("amqp-connection-manager");
const { Count, run } = require("./counting");

const QUEUE = "failover.manager";
const urls = process.argv.slice(2).map((port) => `amqp://guest:guest@127.0.0.1:${port}`);

run(async () => {
  const count = new Count();
  const connection = manager.connect(urls, {
    heartbeatIntervalInSeconds: 5,
    reconnectTimeInSeconds: 0.05,
    connectionOptions: { timeout: 2000, noDelay: true },
  });
  const declare = (channel) => channel.assertQueue(QUEUE, { durable: true });
  const publisher = connection.createChannel({ setup: declare });
  const consumer = connection.createChannel({
    setup: async (channel) => {
      await declare(channel);
      await channel.prefetch(50);
      await channel.consume(QUEUE, (message) => {
        channel.ack(message);
        count.take(message.content.toString());
      });
    },
  });
  await Promise.all([publisher.waitForConnect(), consumer.waitForConnect()]);
  await count.publishAll((body) =>
    publisher.sendToQueue(QUEUE, Buffer.from(body), { persistent: true }),
  );
  await connection.close();
  count.report();
});
