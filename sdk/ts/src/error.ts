import { Code, ConnectError } from "@connectrpc/connect";
import { ErrorDetailSchema, ErrorReason } from "@tcoder/proto/tcoder/v1/error_pb.js";

/** Connect's class of an error, as the protocol spells it. */
export type ErrorCode =
  | "canceled"
  | "unknown"
  | "invalid_argument"
  | "deadline_exceeded"
  | "not_found"
  | "already_exists"
  | "permission_denied"
  | "resource_exhausted"
  | "failed_precondition"
  | "aborted"
  | "out_of_range"
  | "unimplemented"
  | "internal"
  | "unavailable"
  | "data_loss"
  | "unauthenticated";

/**
 * Why a call failed, for programs to switch on: a reason of the server, without
 * the prefix of the enum; `UNREACHABLE` when the server never answered; the
 * code in capitals when what answered is not a tcoder server, or a newer one
 * whose reason this version doesn't know.
 */
export type Reason = Exclude<keyof typeof ErrorReason, "UNSPECIFIED"> | "UNREACHABLE" | Uppercase<ErrorCode>;

/** One field of a request and the rule it breaks. */
export interface FieldViolation {
  /** Path of the field, in proto names: `spec.qualities[1]`. */
  field: string;
  /** The rule, as a sentence. */
  description: string;
}

/** What a {@link TcoderError} is made of. */
export interface ErrorParts {
  code: ErrorCode;
  reason: Reason;
  remedy?: string;
  fields?: FieldViolation[];
  metadata?: Record<string, string>;
  retryAfterMs?: number;
  cause?: unknown;
}

/** A call that was refused or could not be made. Its message never holds a signed URL. */
export class TcoderError extends Error {
  override readonly name = "TcoderError";
  /** Connect's class of the error. */
  readonly code: ErrorCode;
  /** The stable cause to switch on. */
  readonly reason: Reason;
  /** What to do about it. Empty where nothing helps. */
  readonly remedy: string;
  /** The fields of the request at fault. */
  readonly fields: readonly FieldViolation[];
  /** Facts about this case, such as `declared_bytes`. */
  readonly metadata: Readonly<Record<string, string>>;
  /** When a retry can succeed, in milliseconds; 0 where time alone won't help. */
  readonly retryAfterMs: number;

  constructor(message: string, parts: ErrorParts) {
    super(message, parts.cause === undefined ? undefined : { cause: parts.cause });
    this.code = parts.code;
    this.reason = parts.reason;
    this.remedy = parts.remedy ?? "";
    this.fields = parts.fields ?? [];
    this.metadata = parts.metadata ?? {};
    this.retryAfterMs = parts.retryAfterMs ?? 0;
  }
}

/** Reports whether err is a {@link TcoderError} of the given reason. */
export function isReason(err: unknown, reason: Reason): err is TcoderError {
  return err instanceof TcoderError && err.reason === reason;
}

/** A reason of a job's or an attempt's failure as texts write it: `INPUT_NOT_MEDIA`. */
export function reasonName(reason: ErrorReason): string {
  return ErrorReason[reason] ?? String(reason);
}

/** Makes a TcoderError of what a Connect call threw. */
export function toTcoderError(thrown: unknown): TcoderError {
  if (thrown instanceof TcoderError) {
    return thrown;
  }
  const err = ConnectError.from(thrown);
  const code = codeName(err.code);
  if (isUnanswered(err)) {
    return new TcoderError(`no answer from the server: ${reachFailure(err)}`, {
      code,
      reason: "UNREACHABLE",
      remedy: inBrowser()
        ? "check that the server runs, that its address is right, and that it allows the origin of this page"
        : "check that the server runs and that its address is right",
      cause: err,
    });
  }
  const detail = err.findDetails(ErrorDetailSchema)[0];
  const unknown = code.toUpperCase() as Uppercase<ErrorCode>;
  if (detail === undefined) {
    return new TcoderError(err.rawMessage, { code, reason: unknown, cause: err });
  }
  const known = detail.reason === ErrorReason.UNSPECIFIED ? undefined : ErrorReason[detail.reason];

  return new TcoderError(err.rawMessage, {
    code,
    reason: (known as Reason | undefined) ?? unknown,
    remedy: detail.remedy,
    fields: detail.fields.map(({ field, description }) => ({ field, description })),
    metadata: { ...detail.metadata },
    retryAfterMs: Number(detail.retryAfter?.seconds ?? 0n) * 1000 + (detail.retryAfter?.nanos ?? 0) / 1e6,
    cause: err,
  });
}

/** Refuses what the caller gave, before or without a call. */
export function invalid(reason: Reason, message: string, cause?: unknown): TcoderError {
  return new TcoderError(message, { code: "invalid_argument", reason, cause });
}

/** Reports whether a call ended without an answer of a tcoder server. */
export function isUnanswered(err: ConnectError): boolean {
  if (err.findDetails(ErrorDetailSchema).length > 0) {
    return false;
  }
  switch (err.code) {
    case Code.Unavailable:
    case Code.DeadlineExceeded:
    case Code.Canceled:
      return true;
    default:
      // What came over the wire has no cause. fetch fails with a TypeError, a
      // body cut short with one too or with a text, Node with an error that
      // has a code.
      return err.cause instanceof TypeError || typeof err.cause === "string" || systemCode(err.cause) !== undefined;
  }
}

/** Reports whether the same call may succeed later. */
export function isTransient(err: ConnectError): boolean {
  return isUnanswered(err) || err.code === Code.Unavailable;
}

/** The code that Node gives a network error, whatever it is wrapped in. */
function systemCode(cause: unknown): string | undefined {
  for (let at = cause; at instanceof Error; at = at.cause) {
    if ("code" in at && typeof at.code === "string") {
      return at.code;
    }
  }

  return undefined;
}

/** The innermost part of a network error: "connect ECONNREFUSED 127.0.0.1:8080". */
export function reachFailure(err: unknown): string {
  if (err instanceof ConnectError && err.code === Code.DeadlineExceeded) {
    return "time ran out";
  }
  let at = err;
  while (at instanceof Error && at.cause !== undefined) {
    at = at.cause;
  }
  if (at instanceof AggregateError && at.errors.length > 0) {
    at = at.errors[0];
  }
  if (at instanceof ConnectError) {
    return at.rawMessage;
  }

  return at instanceof Error ? at.message : String(at);
}

function codeName(code: Code): ErrorCode {
  const camel = Code[code] ?? "Unknown";

  return camel.replace(/(?<=[a-z])(?=[A-Z])/g, "_").toLowerCase() as ErrorCode;
}

function inBrowser(): boolean {
  return "location" in globalThis;
}
