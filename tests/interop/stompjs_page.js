// A page with @stomp/stompjs in a headless Chromium: arguments are the WebSocket port, the library
// and a folder for the browser's profile. The page posts what came of it.
const http = require("http");
const fs = require("fs");
const { spawn } = require("child_process");

const [port, library, profile] = process.argv.slice(2);
const page = `<!doctype html><script src="/stomp.js"></script><script>
const tell = (text) => fetch("/result", { method: "POST", body: text });
const bodies = ["one", "two \\u{1F600}", "x".repeat(300000)];
const got = [];
const client = new StompJs.Client({
  brokerURL: "ws://127.0.0.1:${port}/ws",
  connectHeaders: { login: "guest", passcode: "guest", host: "/" },
  onConnect: () => {
    client.subscribe("/queue/browser", (message) => {
      got.push(message.body);
      message.ack();
      if (got.length < bodies.length) return;
      const same = JSON.stringify(got) === JSON.stringify(bodies);
      tell(same ? "ok " + client.connectedVersion : "other bodies came");
    }, { ack: "client" });
    bodies.forEach((body) => client.publish({ destination: "/queue/browser", body }));
  },
  onStompError: (frame) => tell("ERROR " + frame.headers.message),
});
client.activate();
</script>`;

let browser;
const end = (text, code) => {
  console.log(`browser: ${text}`);
  browser.kill("SIGKILL");
  process.exit(code);
};
const server = http.createServer((request, response) => {
  if (request.url === "/result") {
    let body = "";
    request.on("data", (part) => (body += part));
    request.on("end", () => end(body, body === "ok 1.2" ? 0 : 1));
  } else if (request.url === "/stomp.js") {
    response.setHeader("Content-Type", "text/javascript");
    response.end(fs.readFileSync(library));
  } else {
    response.setHeader("Content-Type", "text/html; charset=utf-8");
    response.end(page);
  }
});
server.listen(0, "127.0.0.1", () => {
  browser = spawn("chromium", [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    `--user-data-dir=${profile}`, `http://127.0.0.1:${server.address().port}/`,
  ], { stdio: "ignore" });
  browser.on("exit", (code) => end(`ended with ${code}`, 1));
  setTimeout(() => end("no result after 90 s", 1), 90_000);
});
