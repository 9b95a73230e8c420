// stompit (node) against a pair: arguments are the STOMP ports of both nodes, master first.
const assert = require("assert");
const { ConnectFailover } = require("stompit");

const COUNT = 600;
const servers = process.argv.slice(2).map((port) => ({
  host: "127.0.0.1",
  port: Number(port),
  connectHeaders: { host: "/", login: "guest", passcode: "guest", "heart-beat": "5000,5000" },
}));

// The client's own list of brokers: it tries one after the other.
const failover = new ConnectFailover(servers, {
  initialReconnectDelay: 10,
  maxReconnectDelay: 50,
  maxReconnects: 2000,
  randomize: false,
});
const connect = () =>
  new Promise((done, failed) =>
    failover.connect((error, client) => {
      if (error) return failed(error);
      client.on("error", () => {});
      done(client);
    }),
  );

/** Answered when both nodes have it. */
const send = (client, headers, body) =>
  new Promise((done, failed) => {
    client.once("error", failed);
    const frame = client.send(headers, {
      onReceipt: () => {
        client.removeListener("error", failed);
        done();
      },
      onError: failed,
    });
    frame.end(body);
  });

/** Calls `take` with each message and its text; ends when `take` says so. */
const read = (client, headers, take) =>
  new Promise((done, failed) => {
    const subscription = client.subscribe(headers, (error, message) => {
      if (error) return failed(error);
      const chunks = [];
      message.on("data", (chunk) => chunks.push(chunk));
      message.on("end", () => {
        client.ack(message);
        if (take(message.headers, Buffer.concat(chunks))) done(subscription);
      });
    });
  });

const disconnect = (client) =>
  new Promise((done, failed) => client.disconnect((error) => (error ? failed(error) : done())));

async function basics() {
  const client = await connect();
  const destination = "/queue/interop-stompit-basics";
  const own = { destination, colour: "a:b\\c", "content-type": "text/plain", priority: "4" };
  await send(client, own, "one");
  const large = Buffer.alloc(500_000, 0);
  await send(client, { destination, "content-length": large.length }, large);
  const got = [];
  const mode = { destination, ack: "client-individual" };
  const subscription = await read(client, mode, (headers, body) => got.push([headers, body]) === 2);
  subscription.unsubscribe();
  assert.strictEqual(got[0][0].colour, "a:b\\c");
  assert.strictEqual(got[0][0].priority, "4");
  assert.strictEqual(got[0][1].toString(), "one");
  assert.ok(got[1][1].equals(large), "NULs survive");

  const aborted = client.begin();
  aborted.send({ destination }).end("aborted");
  aborted.abort();
  const committed = client.begin();
  committed.send({ destination }).end("committed");
  committed.commit();
  const bodies = [];
  await read(client, mode, (_, body) => bodies.push(body.toString()) === 1);
  assert.deepStrictEqual(bodies, ["committed"]);
  await disconnect(client);
}

async function takeover() {
  const destination = "/queue/interop-stompit";
  let client = null;
  let number = 0;
  while (number < COUNT) {
    try {
      client ??= await connect();
      await send(client, { destination, persistent: "true" }, String(number));
      number += 1;
      if (number === COUNT / 2) console.log("KILL");
    } catch (error) {
      client = null;
    }
  }
  const received = [];
  const unique = new Set();
  await read(client, { destination, ack: "client-individual" }, (_, body) => {
    received.push(Number(body));
    return unique.add(Number(body)).size === COUNT;
  });
  await disconnect(client);
  const lost = [...Array(COUNT).keys()].filter((n) => !unique.has(n));
  const duplicates = received.length - unique.size;
  console.log(JSON.stringify({ confirmed: number, received: received.length, lost, duplicates }));
}

basics()
  .then(takeover)
  .catch((error) => {
    console.error(error);
    process.exit(1);
  });
