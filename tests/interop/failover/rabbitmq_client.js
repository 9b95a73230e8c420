// rabbitmq-client: `hosts`, gone through by itself; publisher and consumer are made anew.
const { Connection } = require("rabbitmq-client");
const { Count, run } = require("./counting");

const QUEUE = "failover.rabbitmq_client";

run(async () => {
  const count = new Count();
  const connection = new Connection({
    hosts: process.argv.slice(2).map((port) => `127.0.0.1:${port}`),
    username: "guest",
    password: "guest",
    heartbeat: 5,
    connectionTimeout: 2000,
    retryLow: 20,
    retryHigh: 100,
  });
  connection.on("error", () => {});
  const queueOptions = { queue: QUEUE, durable: true };
  const consumer = connection.createConsumer(
    { queue: QUEUE, queueOptions, qos: { prefetchCount: 50 } },
    async (message) => count.take(String(message.body)),
  );
  consumer.on("error", () => {});
  await new Promise((done) => consumer.once("ready", done));
  const publisher = connection.createPublisher({ confirm: true });
  await count.publishAll((body) => publisher.send({ routingKey: QUEUE, durable: true }, body));
  await publisher.close();
  await consumer.close();
  await connection.close();
  count.report();
});
