// stompit: `failover:(…)?a=b` without slashes behind the colon. A Channel connects again and
// subscribes again by itself; a send without its receipt is told. `host` is the vhost: without it
// stompit sends the machine's name.
const { Channel, ConnectFailover } = require("stompit");
const { Count, run } = require("./counting");

const QUEUE = "/queue/failover.stompit";
const servers = process.argv.slice(2).map((port) => `tcp://guest:guest@127.1:${port}`);
const uri =
  `failover:(${servers.join(",")})?randomize=false&initialReconnectDelay=10` +
  "&maxReconnectDelay=100&connect[connectHeaders][host]=/";

run(async () => {
  const count = new Count();
  const channel = new Channel(new ConnectFailover(uri), { alwaysConnected: true });
  channel.subscribe({ destination: QUEUE, ack: "client-individual" }, (error, message, subscription) => {
    if (error) return;
    message.readString("utf-8", (failure, body) => {
      if (failure) return;
      channel.ack(message);
      count.take(body);
    });
  });
  await count.publishAll(
    (body) =>
      new Promise((done, failed) =>
        channel.send({ destination: QUEUE, persistent: "true" }, body, (error) =>
          error ? failed(error) : done(),
        ),
      ),
  );
  channel.close();
  count.report();
});
