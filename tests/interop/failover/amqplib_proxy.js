// amqplib takes one URL, here HAProxy's; the loop around it is the program's.
const amqp = require("amqplib");
const { Count, pause, run } = require("./counting");

const QUEUE = "failover.amqplib";
const url = `amqp://guest:guest@127.0.0.1:${process.argv[2]}?heartbeat=5`;

run(async () => {
  const count = new Count();
  let channel = null;

  async function connect() {
    for (;;) {
      try {
        const connection = await amqp.connect(url, { timeout: 2000, noDelay: true });
        const gone = new Promise((_, failed) => connection.once("close", () => failed("closed")));
        gone.catch(() => (channel = null));
        connection.on("error", () => {});
        const made = await Promise.race([connection.createConfirmChannel(), gone]);
        made.on("error", () => {});
        await made.assertQueue(QUEUE, { durable: true });
        await made.prefetch(50);
        await made.consume(QUEUE, (message) => {
          made.ack(message);
          count.take(message.content.toString());
        });
        return { made, gone, connection };
      } catch (error) {
        await pause(50);
      }
    }
  }

  await count.publishAll(async (body) => {
    channel ??= await connect();
    const confirmed = new Promise((done, failed) =>
      channel.made.sendToQueue(QUEUE, Buffer.from(body), { persistent: true }, (error) =>
        error ? failed(error) : done(),
      ),
    );
    await Promise.race([confirmed, channel.gone]);
  });
  await channel.connection.close();
  count.report();
});
