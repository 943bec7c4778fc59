// Plays HLS outputs that lie in folders, one after the other, in a browser by hls.js, and prints how each played as a
// line of JSON. The folders are the arguments.
import { launchBrowser, servePages } from "./browser.js";
import { addressOf } from "./server.js";

const rate = 8;

const folders = process.argv.slice(2);
const pages = await servePages("player.js", new Uint8Array(), folders);
const browser = await launchBrowser();
try {
  for (const place of folders.keys()) {
    const page = await browser.newPage();
    await page.goto(addressOf(pages));
    const played = await page.evaluate(([name, options]) => globalThis.player.playFolder(name, options), [
      String(place),
      { rate },
    ] as const);
    console.log(JSON.stringify(played));
    await page.close();
  }
} finally {
  await browser.close();
  pages.close();
  pages.closeAllConnections();
}
