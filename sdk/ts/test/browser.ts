import { createReadStream } from "node:fs";
import { readFile } from "node:fs/promises";
import { createServer, type Server } from "node:http";
import { join } from "node:path";

import { type Browser, chromium } from "playwright-core";

import { findProgram } from "./tcoder.js";

const chromiumArgs = [
  "--no-sandbox",
  "--disable-gpu",
  "--disable-quic",
  "--disable-dev-shm-usage",
  "--no-first-run",
  "--disable-background-networking",
  "--autoplay-policy=no-user-gesture-required",
];

export async function launchBrowser(): Promise<Browser> {
  return chromium.launch({ executablePath: findProgram("chromium"), args: chromiumArgs });
}

/**
 * Serves a test's page, which is one script beside this one, and the film on an origin of their own. Folders are served
 * too, each below its place in the list.
 */
export async function servePages(name: string, clip: Uint8Array, folders: string[] = []): Promise<Server> {
  const script = await readFile(new URL(name, import.meta.url));
  const server = createServer((req, res) => {
    switch (req.url) {
      case "/":
        res
          .setHeader("Content-Type", "text/html")
          .end(`<!doctype html><video muted></video><script type="module" src="/${name}"></script>`);
        break;
      case `/${name}`:
        res.setHeader("Content-Type", "text/javascript").end(script);
        break;
      case "/clip.mp4":
        res.setHeader("Content-Type", "video/mp4").end(clip);
        break;
      default: {
        const [, place = "", ...path] = new URL(req.url ?? "", "http://localhost").pathname.split("/");
        const folder = folders[Number(place)];
        if (folder === undefined || path.includes("..")) {
          res.writeHead(404).end();
        } else {
          createReadStream(join(folder, ...path))
            .on("error", () => res.writeHead(404).end())
            .pipe(res);
        }
      }
    }
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));

  return server;
}
