-- Workers: one string each, and their place in WORKERS by when they were last
-- seen. Lines: numbers; machine, version and encoders; then the answers to its
-- newest claims that gave it tasks, each the request and the leases.
-- $include(write.lua)
local ANSWERS_KEPT = 4

local function parse_worker(id, raw)
  local w = { id = id, answers = '' }
  local head
  head, w.machine, w.version, w.encoders, w.answers = string.match(raw, '^([^\n]*)\n([^\n]*)\n([^\n]*)\n([^\n]*)\n(.*)$')
  w.session, w.draining, w.attached, w.seen, w.slots, w.cpus =
    string.match(head, '^(%S+) (%S+) (%S+) (%S+) (%S+) (%S+)$')
  return w
end

local function load_worker(id)
  local raw = redis.call('GET', worker_key(id))
  return raw and parse_worker(id, raw) or nil
end

local function save_worker(w)
  set(worker_key(w.id), w.session .. ' ' .. w.draining .. ' ' .. w.attached .. ' ' .. w.seen .. ' ' .. w.slots .. ' '
    .. w.cpus .. '\n' .. w.machine .. '\n' .. w.version .. '\n' .. w.encoders .. '\n' .. w.answers)
end

-- keep_answer keeps what a claim gave, as {member, attempt, ...}, in place of the oldest that is kept.
local function keep_answer(w, request, leases)
  local kept, n = request .. ' ' .. table.concat(leases, ' ') .. '\n', 1
  for line in string.gmatch(w.answers, '[^\n]+\n') do
    if n == ANSWERS_KEPT then break end
    kept, n = kept .. line, n + 1
  end
  w.answers = kept
end

-- answer_of returns what a claim gave, nil if that isn't kept.
local function answer_of(w, request)
  local from, to = string.find('\n' .. w.answers, '\n' .. request .. ' ', 1, true)
  return from and string.match(w.answers, '^[^\n]*', to)
end

-- forget_worker removes a worker that holds nothing.
local function forget_worker(id, machine)
  del(worker_key(id))
  zrem(WORKERS, id)
  if machine and machine ~= '' then redis.call('SREM', machine_workers_key(machine), id) end
end
