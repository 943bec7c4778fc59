import { type ChildProcess, execFile, spawn } from "node:child_process";
import { accessSync, constants, existsSync } from "node:fs";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { connect, createServer, type Server, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { delimiter, dirname, join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";

import { addressOf } from "./server.js";

const root = join(dirname(fileURLToPath(import.meta.url)), "../../../.."); // from dist/test
const film = join(root, "internal/mediatest/testdata/sintel.mp4");
const startMs = 60_000;
const stopMs = 60_000;

/** The binary to test: TCODER_BIN, or the one that `make build` makes. Undefined if there is none. */
export function binary(): string | undefined {
  const named = process.env["TCODER_BIN"];
  const built = join(root, "bin/tcoder");

  return named || (existsSync(built) ? built : undefined);
}

/** Why tests against a real server are skipped, said so that nobody overlooks it; false if they aren't. */
export function notTested(bin: string | undefined): string | false {
  if (bin !== undefined) {
    return false;
  }
  const why = "NOTHING WAS TESTED AGAINST A REAL SERVER: run `make build`, or set TCODER_BIN to a tcoder binary";
  console.error(`\n*** ${why} ***\n`);

  return why;
}

/** The film cut that the project's tests share: 7 s, 1280x720, with sound. */
export async function readClip(): Promise<Buffer<ArrayBuffer>> {
  return (await readFile(film)) as Buffer<ArrayBuffer>;
}

/** The film over and over for some seconds: long enough to be made in chunks. */
export async function loopClip(seconds: number): Promise<Buffer<ArrayBuffer>> {
  const dir = await mkdtemp(join(tmpdir(), "tcoder-clip-"));
  try {
    const path = join(dir, "looped.mp4");
    const args = ["-nostdin", "-v", "error", "-stream_loop", "-1", "-i", film, "-t", String(seconds), "-c", "copy", path];
    await promisify(execFile)("ffmpeg", args);

    return (await readFile(path)) as Buffer<ArrayBuffer>;
  } finally {
    await rm(dir, { recursive: true, force: true });
  }
}

/** Finds a program on PATH. */
export function findProgram(...names: string[]): string {
  for (const dir of (process.env["PATH"] ?? "").split(delimiter)) {
    for (const name of names) {
      const path = join(dir, name);
      try {
        accessSync(path, constants.X_OK);

        return path;
      } catch {
        // Not here.
      }
    }
  }
  throw new Error(`none of ${names.join(", ")} is installed: run make deps-dev`);
}

/** A whole stack of its own: `tcoder up` on a free port, with its data in a temporary folder. */
export class Stack {
  readonly url: string;
  readonly #child: ChildProcess;
  readonly #log: string[];
  readonly #dir: string;

  private constructor(child: ChildProcess, log: string[], dir: string, url: string) {
    this.#child = child;
    this.#log = log;
    this.#dir = dir;
    this.url = url;
  }

  static async start(bin: string, allowOrigin: string): Promise<Stack> {
    const dir = await mkdtemp(join(tmpdir(), "tcoder-sdk-"));
    const args = ["up", "--listen", "127.0.0.1:0", "--data", join(dir, "data"), "--allow-origin", allowOrigin];
    const child = spawn(bin, args, { stdio: ["ignore", "pipe", "pipe"] });
    process.once("exit", () => child.kill("SIGKILL")); // its children go with it
    const log: string[] = [];
    createInterface({ input: child.stderr! }).on("line", (line) => log.push(line));
    try {
      return new Stack(child, log, dir, await apiAddress(child));
    } catch (cause) {
      child.kill("SIGKILL");
      await rm(dir, { recursive: true, force: true });
      throw new Error(`${bin} up did not start:\n${log.join("\n")}`, { cause });
    }
  }

  /** Stops it as Ctrl-C does, and fails if it doesn't end cleanly. */
  async stop(): Promise<void> {
    const exited = exitOf(this.#child);
    this.#child.kill("SIGINT");
    const code = await within(stopMs, exited).finally(() => this.#child.kill("SIGKILL"));
    await rm(this.#dir, { recursive: true, force: true });
    if (code !== 0) {
      throw new Error(`tcoder up ended with ${code}:\n${this.log()}`);
    }
  }

  /** The last lines that it logged. */
  log(): string {
    return this.#log.slice(-50).join("\n");
  }
}

/** Waits until `up` says where it listens. */
async function apiAddress(child: ChildProcess): Promise<string> {
  const lines = createInterface({ input: child.stdout! });
  const said = new Promise<string>((resolve) =>
    lines.on("line", (line) => {
      const address = /^\s*API\s+(http:\/\/\S+)/.exec(line)?.[1];
      if (address !== undefined) {
        resolve(address);
      }
    }),
  );
  const ended = exitOf(child).then((code) => Promise.reject(new Error(`it ended with ${code}`)));

  return within(startMs, Promise.race([said, ended]));
}

function exitOf(child: ChildProcess): Promise<number | string | null> {
  return new Promise((resolve, reject) => {
    if (child.exitCode !== null || child.signalCode !== null) {
      resolve(child.exitCode ?? child.signalCode);
    }
    child.once("error", reject);
    child.once("exit", (code, signal) => resolve(code ?? signal));
  });
}

async function within<T>(ms: number, wanted: Promise<T>): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`nothing after ${ms} ms`)), ms);
  });

  return Promise.race([wanted, late]).finally(() => clearTimeout(timer));
}

/** A TCP proxy whose connections can be cut. */
export class Proxy {
  readonly url: string;
  readonly #server: Server;
  readonly #sockets: Set<Socket>;

  private constructor(server: Server, sockets: Set<Socket>) {
    this.#server = server;
    this.#sockets = sockets;
    this.url = addressOf(server);
  }

  static async start(target: string): Promise<Proxy> {
    const { hostname, port } = new URL(target);
    const sockets = new Set<Socket>();
    const server = createServer((near) => {
      const far = connect(Number(port), hostname);
      for (const [socket, other] of [
        [near, far],
        [far, near],
      ] as const) {
        sockets.add(socket);
        socket.on("error", () => {}); // its close follows
        socket.on("close", () => {
          sockets.delete(socket);
          other.destroy();
        });
        socket.pipe(other);
      }
    });
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));

    return new Proxy(server, sockets);
  }

  cut(): void {
    this.#sockets.forEach((socket) => socket.destroy());
  }

  stop(): void {
    this.#server.close();
    this.cut();
  }
}
