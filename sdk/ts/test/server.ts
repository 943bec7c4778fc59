import { createHash, randomUUID } from "node:crypto";
import { createServer, type IncomingHttpHeaders, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo, Server as NetServer } from "node:net";
import type { TestContext } from "node:test";

import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import { Code, ConnectError, type ServiceImpl } from "@connectrpc/connect";
import { connectNodeAdapter } from "@connectrpc/connect-node";
import { ErrorDetailSchema } from "@tcoder/proto/tcoder/v1/error_pb.js";
import { JobService } from "@tcoder/proto/tcoder/v1/job_pb.js";
import {
  type SignedPart,
  SignedPartSchema,
  type SignedRequest,
  SignedRequestSchema,
  UploadService,
} from "@tcoder/proto/tcoder/v1/upload_pb.js";
import { Tcoder, type TcoderOptions } from "@tcoder/sdk";

/** Pauses short enough for tests. */
export const quickRetry = { firstDelayMs: 1, maxDelayMs: 5, patienceMs: 10_000, firstPatienceMs: 10_000 };

/** The calls that a test scripts; the others are unimplemented. */
export interface Script {
  jobs: Partial<ServiceImpl<typeof JobService>>;
  uploads: Partial<ServiceImpl<typeof UploadService>>;
}

/** A real HTTP server that speaks Connect and answers as its script says. */
export class ScriptedServer {
  readonly script: Script = { jobs: {}, uploads: {} };
  /** The headers of every call, oldest first. */
  readonly calls: IncomingHttpHeaders[] = [];
  readonly url: string;
  readonly #server: Server;

  private constructor(server: Server) {
    this.#server = server;
    this.url = addressOf(server);
  }

  static async start(t: TestContext): Promise<ScriptedServer> {
    let scripted: ScriptedServer | undefined;
    const adapter = connectNodeAdapter({
      routes: (router) => {
        router.service(JobService, forward(JobService, () => scripted?.script.jobs));
        router.service(UploadService, forward(UploadService, () => scripted?.script.uploads));
      },
    });
    const server = await listen(t, (req, res) => {
      scripted?.calls.push(req.headers);
      adapter(req, res);
    });

    return (scripted = new ScriptedServer(server));
  }

  client(options: Partial<TcoderOptions> = {}): Tcoder {
    return new Tcoder({ baseUrl: this.url, retry: quickRetry, ...options });
  }

  /** Breaks every connection, in the middle of what they carry. */
  breakConnections(): void {
    this.#server.closeAllConnections();
  }
}

type Method = (...args: unknown[]) => unknown;

/** Makes an implementation that looks each call up when it comes, so that a test can script it later. */
function forward<S extends typeof JobService | typeof UploadService>(
  service: S,
  script: () => Partial<ServiceImpl<S>> | undefined,
): Partial<ServiceImpl<S>> {
  const find = (name: string): Method => {
    const scripted = (script() as Record<string, Method> | undefined)?.[name];
    if (scripted === undefined) {
      throw new ConnectError("not scripted", Code.Unimplemented);
    }

    return scripted;
  };
  const methods = service.methods.map(({ localName, methodKind }) => [
    localName,
    methodKind === "server_streaming"
      ? async function* (...args: unknown[]) {
          yield* find(localName)(...args) as AsyncIterable<unknown>;
        }
      : async (...args: unknown[]) => find(localName)(...args),
  ]);

  return Object.fromEntries(methods) as Partial<ServiceImpl<S>>;
}

/** An object store that takes PUTs by signed URLs and keeps what it got. */
export class Store {
  /** The requests that came, as `PUT name`. */
  readonly seen: string[] = [];
  readonly headers: IncomingHttpHeaders[] = [];
  readonly objects = new Map<string, Buffer>();
  /** Answers in place of the store; true if it did. */
  intercept: (req: IncomingMessage, res: ServerResponse) => boolean | Promise<boolean> = () => false;
  readonly #expired = new Set<string>();
  readonly #url: string;

  private constructor(server: Server) {
    this.#url = addressOf(server);
  }

  static async start(t: TestContext): Promise<Store> {
    let store: Store | undefined;
    const server = await listen(t, (req, res) => {
      store?.answer(req, res).catch(() => res.destroy());
    });

    return (store = new Store(server));
  }

  sign(name: string): SignedRequest {
    return create(SignedRequestSchema, {
      method: "PUT",
      url: `${this.#url}/${name}?token=${randomUUID()}`,
      headers: { "Content-Type": "video/mp4" },
      expiresAt: timestampFromMs(Date.now() + 3_600_000),
    });
  }

  /** Makes the store refuse a request that it has signed. */
  expire(request: SignedRequest): void {
    this.#expired.add(request.url);
  }

  async answer(req: IncomingMessage, res: ServerResponse): Promise<void> {
    const { pathname } = new URL(req.url ?? "", this.#url);
    const name = pathname.slice(1);
    this.seen.push(`${req.method} ${name}`);
    this.headers.push(req.headers);
    if (await this.intercept(req, res)) {
      return;
    }
    const chunks: Buffer[] = [];
    for await (const chunk of req) {
      chunks.push(chunk as Buffer);
    }
    if (this.#expired.has(this.#url + req.url)) {
      res.writeHead(403).end("<Error><Code>AccessDenied</Code></Error>");

      return;
    }
    const body = Buffer.concat(chunks);
    this.objects.set(name, body);
    res.writeHead(200, { ETag: `"${etagOf(body)}"` }).end();
  }
}

/** Scripts an upload service that takes sources in one PUT, or in parts if partSizeBytes is given. */
export function serveUploads(server: ScriptedServer, store: Store, partSizeBytes?: number): void {
  const upload = { id: "u", jobId: "j", state: 1, filename: "", sizeBytes: 0n, partSizeBytes: 0n, partCount: 0 };
  server.script.uploads = {
    createUpload: ({ filename, sizeBytes }) => {
      Object.assign(upload, { filename, sizeBytes });
      if (partSizeBytes === undefined) {
        return { upload, put: store.sign("whole") };
      }
      upload.partSizeBytes = BigInt(partSizeBytes);
      upload.partCount = Math.ceil(Number(sizeBytes) / partSizeBytes);

      return { upload, parts: signedParts(store, [1, 2]) };
    },
    signUploadParts: ({ partNumbers }) => ({ parts: signedParts(store, partNumbers) }),
    completeUpload: ({ parts }) => {
      for (const [i, { partNumber, etag }] of parts.entries()) {
        if (partNumber !== i + 1 || etag !== etagOf(store.objects.get(`part-${partNumber}`))) {
          throw refusal(Code.InvalidArgument, { reason: 26 });
        }
      }

      return { upload, job: { id: "j" } };
    },
  };
}

export function signedParts(store: Store, partNumbers: number[]): SignedPart[] {
  return partNumbers.map((partNumber) =>
    create(SignedPartSchema, { partNumber, request: store.sign(`part-${partNumber}`) }),
  );
}

/** What the store holds of a multipart upload. */
export function joined(store: Store, parts: number): Buffer {
  return Buffer.concat(Array.from({ length: parts }, (_, i) => store.objects.get(`part-${i + 1}`) ?? Buffer.of()));
}

export function etagOf(body: Uint8Array | undefined): string {
  return createHash("md5").update(body ?? Buffer.of()).digest("hex");
}

/** An error as a tcoder server sends it. */
export function refusal(code: Code, detail: MessageInitShape<typeof ErrorDetailSchema>): ConnectError {
  return new ConnectError("because", code, undefined, [{ desc: ErrorDetailSchema, value: detail }]);
}

/** The server whose Redis is away. */
export function unavailable(): ConnectError {
  return refusal(Code.Unavailable, { reason: 90 });
}

/** Reads a request to its end. */
export async function drain(req: IncomingMessage): Promise<void> {
  for await (const _ of req) {
    // Only its end matters.
  }
}

async function listen(t: TestContext, handler: (req: IncomingMessage, res: ServerResponse) => void): Promise<Server> {
  const server = createServer(handler);
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  t.after(() => {
    server.close();
    server.closeAllConnections();
  });

  return server;
}

export function addressOf(server: NetServer): string {
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
}
