// amqplib (node) against a pair: arguments are the AMQP ports of both nodes, master first.
const amqp = require("amqplib");
const assert = require("assert");

const ports = process.argv.slice(2).map(Number);
const COUNT = 600;
const pause = (ms) => new Promise((done) => setTimeout(done, ms));

async function connect() {
  for (let attempt = 0; ; attempt++) {
    for (const port of ports) {
      try {
        const connection = await amqp.connect(`amqp://guest:guest@127.0.0.1:${port}`);
        connection.on("error", () => {});
        return connection;
      } catch (error) {
        if (attempt > 2000) throw error;
      }
    }
    await pause(10);
  }
}

async function basics() {
  const connection = await connect();
  const channel = await connection.createConfirmChannel();
  const { queue } = await channel.assertQueue("", { exclusive: true });
  await channel.assertExchange("interop.direct", "direct", { durable: true });
  await channel.bindQueue(queue, "interop.direct", "key");
  channel.publish("interop.direct", "key", Buffer.from("one"), { headers: { a: 1, b: "two" } });
  channel.sendToQueue(queue, Buffer.alloc(500_000, 7));
  await channel.waitForConfirms();
  const got = [];
  await new Promise((done) =>
    channel.consume(queue, (message) => {
      got.push(message);
      channel.ack(message);
      if (got.length === 2) done();
    }),
  );
  assert.strictEqual(got[0].content.toString(), "one");
  assert.deepStrictEqual(got[0].properties.headers, { a: 1, b: "two" });
  assert.strictEqual(got[1].content.length, 500_000);
  await channel.close();
  const doomed = await connection.createChannel();
  doomed.on("error", () => {});
  await assert.rejects(doomed.checkQueue("interop.none"), /404/);
  await connection.close();
}

async function failover() {
  const queue = "interop.amqplib";
  let channel = null;
  let connection = null;
  let number = 0;
  while (number < COUNT) {
    try {
      if (!channel) {
        connection = await connect();
        channel = await connection.createConfirmChannel();
        channel.on("error", () => {});
        await channel.assertQueue(queue, { durable: true });
      }
      await new Promise((done, failed) => {
        connection.once("close", failed);
        channel.sendToQueue(queue, Buffer.from(String(number)), { persistent: true }, (error) => {
          connection.removeListener("close", failed);
          error ? failed(error) : done();
        });
      });
      number += 1;
      if (number === COUNT / 2) console.log("KILL");
    } catch (error) {
      channel = null;
    }
  }
  const received = [];
  await new Promise((done) =>
    channel.consume(queue, (message) => {
      received.push(Number(message.content.toString()));
      channel.ack(message);
      if (new Set(received).size === COUNT) done();
    }),
  );
  await connection.close();
  const unique = new Set(received);
  const lost = [...Array(COUNT).keys()].filter((n) => !unique.has(n));
  const duplicates = received.length - unique.size;
  console.log(JSON.stringify({ confirmed: number, received: received.length, lost, duplicates }));
}

basics()
  .then(failover)
  .catch((error) => {
    console.error(error);
    process.exit(1);
  });
