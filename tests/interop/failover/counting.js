// What the failover recipes in Node.js count; see counting.py.
const COUNT = 200;
const PATIENCE_MS = 60_000;
const pause = (ms) => new Promise((done) => setTimeout(done, ms));

class Count {
  constructor() {
    this.sent = this.confirmed = 0;
    this.received = [];
    this.unique = new Set();
    this.withoutMs = 0;
    this.complete = new Promise((done) => (this.done = done));
  }

  /** `publish` is fulfilled when the body is confirmed, and rejected if it is not. */
  async publishAll(publish) {
    for (let number = 0; number < COUNT; number++) {
      if (number === COUNT / 2) console.log("KILL");
      for (;;) {
        this.sent += 1;
        try {
          await publish(String(number));
          break;
        } catch (error) {
          await pause(5);
        }
      }
      const now = performance.now();
      this.withoutMs = Math.max(this.withoutMs, now - (this.last ?? now));
      this.last = now;
      this.confirmed += 1;
    }
    await Promise.race([this.complete, pause(PATIENCE_MS)]);
  }

  take(body) {
    this.received.push(Number(body));
    if (this.unique.add(Number(body)).size === COUNT) this.done();
  }

  report() {
    console.log(
      JSON.stringify({
        sent: this.sent,
        confirmed: this.confirmed,
        received: this.received.length,
        duplicates: this.received.length - this.unique.size,
        lost: [...Array(COUNT).keys()].filter((number) => !this.unique.has(number)),
        without_service_s: Math.round(this.withoutMs) / 1000,
      }),
    );
    process.exit(0);
  }
}

module.exports = {
  Count,
  pause,
  run: (main) =>
    main().catch((error) => {
      console.error(error);
      process.exit(1);
    }),
};
