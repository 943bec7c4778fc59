// A peer of the benchmarks: submits jobs to BullMQ at a steady rate on a Redis
// that it is given, and prints as JSON how long each took from just before its
// submission to its processor.
//
//   node latency.js --redis HOST:PORT --tasks N --every MS --payload BYTES
import { parseArgs } from "node:util";
import { Queue, Worker } from "bullmq";

const { values } = parseArgs({
  options: {
    redis: { type: "string" },
    tasks: { type: "string", default: "500" },
    every: { type: "string", default: "20" },
    payload: { type: "string", default: "300" },
  },
});
const [host, port] = values.redis.split(":");
const connection = { host, port: Number(port), maxRetriesPerRequest: null };
const tasks = Number(values.tasks);
const body = "x".repeat(Number(values.payload));

const queue = new Queue("bench", { connection });
const latencies = [];
let finished;
const all = new Promise((resolve) => {
  finished = resolve;
});
const worker = new Worker(
  "bench",
  async (job) => {
    latencies.push(performance.now() - job.data.sent);
    if (latencies.length === tasks) finished();
  },
  { connection, concurrency: 32 },
);
await Promise.all([queue.waitUntilReady(), worker.waitUntilReady()]);

const start = performance.now();
const cpu = process.cpuUsage();
let submitted = 0;
const additions = [];
await new Promise((resolve) => {
  const timer = setInterval(() => {
    additions.push(queue.add("job", { sent: performance.now(), body }));
    if (++submitted === tasks) {
      clearInterval(timer);
      resolve();
    }
  }, Number(values.every));
});
await Promise.all(additions);
await Promise.race([all, new Promise((resolve) => setTimeout(resolve, 60_000).unref())]);
const used = process.cpuUsage(cpu);
console.log(
  JSON.stringify({
    submitted,
    processed: latencies.length,
    wall_s: (performance.now() - start) / 1000,
    cpu_s: (used.user + used.system) / 1e6,
    latency_ms: latencies,
  }),
);
await worker.close();
await queue.close();
