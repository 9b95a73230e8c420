// @stomp/stompjs (node) against a pair: arguments are the WebSocket ports of both nodes, master
// first. Prints KILL when the master may be killed, and a JSON object at the end.
const { Client } = require("@stomp/stompjs");
const { WebSocket } = require("ws");
const assert = require("assert");

const urls = process.argv.slice(2).map((port) => `ws://127.0.0.1:${port}/ws`);
const COUNT = 300;
let at = 0;

/// The client connects again by itself; each try goes to the next node.
function connect(onConnect) {
  const client = new Client({
    webSocketFactory: () => new WebSocket(urls[at++ % urls.length], ["v12.stomp", "v11.stomp"]),
    connectHeaders: { login: "guest", passcode: "guest", host: "/" },
    reconnectDelay: 20,
    heartbeatIncoming: 0,
    heartbeatOutgoing: 0,
    onConnect: () => onConnect(client),
    onStompError: (frame) => {
      console.error(frame.headers.message, frame.body);
      process.exit(1);
    },
  });
  client.activate();
  return client;
}

async function basics() {
  const got = [];
  await new Promise((done) => {
    const client = connect(async () => {
      assert.strictEqual(client.connectedVersion, "1.2");
      client.subscribe("/queue/ws-basics", (message) => {
        got.push(message);
        message.ack();
        if (got.length === 4) client.deactivate().then(done);
      }, { ack: "client-individual" });
      client.publish({ destination: "/queue/ws-basics", body: "één", headers: { mine: "a:b\nc" } });
      client.publish({ destination: "/queue/ws-basics", body: "x".repeat(900_000) });
      client.publish({ destination: "/queue/ws-basics", binaryBody: new Uint8Array([0, 255, 0]) });
      client.publish({ destination: "/queue/ws-basics", body: "é".repeat(200_000) });
    });
  });
  assert.strictEqual(got[0].body, "één");
  assert.strictEqual(got[0].headers.mine, "a:b\nc");
  assert.strictEqual(got[1].body.length, 900_000);
  assert.deepStrictEqual([...got[2].binaryBody], [0, 255, 0]);
  assert.strictEqual(got[3].body, "é".repeat(200_000));
}

async function failover() {
  const confirmed = new Set();
  let next = 0;
  let again = () => {};
  await new Promise((done) => {
    const send = (client) => {
      if (next === COUNT) return client.deactivate().then(done);
      const number = next;
      const life = client.webSocket;
      client.watchForReceipt(`r-${number}-${at}`, () => {
        if (life !== client.webSocket) return;
        confirmed.add(number);
        next = number + 1;
        if (next === COUNT / 2) console.log("KILL");
        send(client);
      });
      client.publish({
        destination: "/queue/ws-failover",
        body: String(number),
        headers: { receipt: `r-${number}-${at}`, persistent: "true" },
      });
    };
    connect(send);
  });
  const received = [];
  await new Promise((done) => {
    const client = connect(() => {
      client.subscribe("/queue/ws-failover", (message) => {
        received.push(Number(message.body));
        message.ack();
        if (new Set(received).size === COUNT) client.deactivate().then(done);
      }, { ack: "client-individual" });
    });
  });
  const lost = [...confirmed].filter((number) => !received.includes(number));
  const duplicates = received.length - new Set(received).size;
  console.log(JSON.stringify({ confirmed: confirmed.size, received: received.length, lost, duplicates }));
}

basics().then(failover).then(() => process.exit(0), (error) => {
  console.error(error);
  process.exit(1);
});
setTimeout(() => {
  console.error("stompjs: no end after 60 s");
  process.exit(1);
}, 60_000);
