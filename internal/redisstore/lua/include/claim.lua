-- Claims: they lease ready tasks to workers, whose turn it is (see turn.lua). The first lease of a job moves it to
-- RUNNING. A claim is a list: worker id, session, max, lease ms, request id, running limit. Of different limits the last holds.
-- $include(attempt.lua)
-- $include(serve.lua)
local STARTS = pack(EVENT, EVENT_TYPES.STARTED, NOW)
local CHOSEN, TOUCHED, OWNERS, NEXT_TASK -- what claims are given of
local IDS, INDEXES, JOB_KEYS, SPECS = {}, {}, {}, {} -- of what was chosen
local ROWS = {} -- and the keys of the jobs in them

-- worker_of returns a worker's state, and its answers to the newest two claims that gave it tasks.
local function worker_of(key)
  local raw = READ[key]
  if not raw then return { key = key, newest = '', older = '' } end
  local first = string.find(raw, '\n', 1, true)
  local second = string.find(raw, '\n', first + 1, true)
  return { key = key, state = sub(raw, 1, first - 1), newest = sub(raw, first + 1, second - 1), older = sub(raw, second + 1) }
end

-- judge_claims finds out who may have tasks, and whose answer comes again. It returns the workers, and how many tasks are wanted.
local function judge_claims(requests)
  local standings, workers, first = {}, {}, {}
  for i, r in ipairs(requests) do
    r.key = standing_key(r[1])
    standings[i] = r.key
  end
  read_all(standings)

  local wanted, limit = 0
  for _, r in ipairs(requests) do
    local id = r[1]
    local w = workers[id] or worker_of(r.key)
    workers[id] = w
    r.worker = w
    local start = r[5] .. ' '
    if string.find(w.newest, start, 1, true) == 1 then r.replay = w.newest end
    if string.find(w.older, start, 1, true) == 1 then r.replay = w.older end
    local of_worker = list_of(first, id)
    r.first = of_worker[start]
    of_worker[start] = r.first or r
    if not r.first and not r.replay and w.state == r[2] .. ' 0 1' then
      r.max, limit = r[3], r[6]
      wanted = wanted + r.max
    end
  end
  if limit then set_limit(limit) end
  return workers, wanted
end

-- choose chooses up to most tasks, and reads what a lease needs of them and wasn't read.
local function choose(most)
  CHOSEN, TOUCHED, OWNERS = serve(most)
  NEXT_TASK = 0
  local missing = {}
  for i, m in ipairs(CHOSEN) do
    local id, index = parse_member(m)
    local spec = spec_key(id)
    IDS[i], INDEXES[i], SPECS[i] = id, index, spec
    JOB_KEYS[i] = attempt_keys(missing, id, index, m)
    if READ[JOB_KEYS[i]] and index == 0 then missing[#missing] = nil end
    if not READ[spec] then missing[#missing + 1] = spec end
  end
  read_all(missing)
end

-- take leases the next task that was chosen, and returns it, the attempt and the lease's row; nil if there is none. One that
-- can't be read is passed by.
local function take(worker, lease, deadline)
  while CHOSEN[NEXT_TASK + 1] do
    NEXT_TASK = NEXT_TASK + 1
    local m, id, index, key = CHOSEN[NEXT_TASK], IDS[NEXT_TASK], INDEXES[NEXT_TASK], JOB_KEYS[NEXT_TASK]
    local raw = READ[key]
    if raw then
      local read, project, progress, state, run, sequence, base, open, lease_ms, left, stream, uploaded, started, playable, finished, weight,
        done, percent, behind = pcall(unpack_struct, HEAD, raw)
      local task, at
      if read then task, at = task_in(raw, behind, index, m) end
      if task then
        local s, last, n, _, share, told, kept, follow, task_behind
        read, s, last, n, _, share, told, kept, follow, _, task_behind = pcall(unpack_struct, HOT, task, at)
        if read and s == READY and (state == PENDING or state == RUNNING) then
          if sequence - base >= EVENTS_BEHIND then
            raw = put_by(id, raw, behind, base)
            base = sequence
            if index == 0 then task = raw end
          end
          n, sequence = n + 1, sequence + 1
          local events = task_event('TASK_LEASED', index, n)
          if state == PENDING then
            state, started, sequence, events = RUNNING, NOW, sequence + 1, STARTS .. events
            zrem(index_of(project, 'PENDING'), id)
            zadd(index_of(project, 'RUNNING'), '0', id)
          end
          keep_attempt(key, raw, behind, index, m, task, task_behind, events, project, progress, state, run, sequence, base, open,
            math.max(lease_ms, lease), left, stream, uploaded, started, playable, finished, weight, done, percent,
            LEASED, last, n, NOW, share, told, kept, follow, worker)
          note(id, sequence)
          local name = lease_name(worker, m, n)
          zadd(LEASES, deadline, name)
          zadd(HELD, '0', name)
          count_leases(project, 1)
          local row = starts(uploaded, index, n) and { m, deadline, raw, READ[SPECS[NEXT_TASK]] }
            or lease_row(m, deadline, id, index, false)
          append(ROWS, row, key)
          return m, n, row
        end
      end
      if not read then found_broken(id, OWNERS[NEXT_TASK]) end
    end
    for _, e in ipairs(TOUCHED) do
      if e.name == OWNERS[NEXT_TASK] then e.full = false end -- it doesn't run after all
    end
  end
end

-- still_held returns the rows of a request that comes again: of the leases of its first answer that are still held.
local function still_held(r, answer)
  for m, attempt in string.gmatch(string.sub(r.replay, #r[5] + 1), '(%S+) (%d+)') do
    local id, index = parse_member(m)
    local raw = read(job_key(id))
    local whole, behind = pcall(function() return raw and select(18, unpack_struct(HEAD, raw)) end)
    if index > 0 then read(task_key(m)) end
    local task, at
    if whole and raw then task, at = task_in(raw, behind, index, m) end
    if task then
      local read_, s, _, n, _, _, _, _, _, by = pcall(unpack_struct, HOT, task, at)
      if read_ and s == LEASED and by == r[1] and n == attempt + 0 then
        answer[#answer + 1] = lease_row(m, redis.call('ZSCORE', LEASES, lease_name(by, m, n)), id, index, false)
      end
    end
  end
end

local function claim(r)
  local answer = { '', 0, 0 }
  if r.replay then
    still_held(r, answer)
    return answer
  end
  if not r.max then -- it wasn't trusted above
    answer[3] = 1
    return answer
  end

  local lease_ms = r[4]
  local deadline = deadline_text(lease_ms)
  local given
  for _ = 1, r.max do
    local m, n, row = take(r[1], lease_ms, deadline)
    if not m then break end
    given = (given or r[5]) .. ' ' .. m .. ' ' .. digits(n)
    answer[#answer + 1] = row
  end
  if given then
    local w = r.worker
    w.newest, w.older, w.changed = given, w.newest, true
    -- While there are leases, the sweeper comes at least that often.
    due(NOW + math.floor(lease_ms / 3))
  end
  return answer
end

-- claim_all answers claims. Nothing is written yet but whose turn is next: write_out does that.
local function claim_all(requests)
  local workers, wanted = judge_claims(requests)
  choose(wanted)
  for _, r in ipairs(requests) do
    -- A request that comes twice in one call has one answer.
    r.answer = r.first and r.first.answer or claim(r)
  end
  for _, w in pairs(workers) do
    if w.changed then set(w.key, w.state .. '\n' .. w.newest .. '\n' .. w.older) end
  end
  settle_served(TOUCHED)
end

-- finish_rows gives the rows of leases their jobs as they are in the end: a job may have given more than one.
local function finish_rows()
  for i = 1, #ROWS, 2 do ROWS[i][3] = READ[ROWS[i + 1]] end
end
