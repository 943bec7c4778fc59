-- A script of a verb that is called often takes many requests at a time. Each
-- is the number of its keys and the number of its arguments, then these; the
-- keys of all follow the common ones. Each gets its own answer, as if they had
-- come one by one: a refusal is an answer and harms no other request.

-- read_requests returns the requests: lists of arguments, with their keys in k.
local function read_requests()
  local requests = {}
  local at, key = 2, 14
  while ARGV[at] do
    local keys, args = tonumber(ARGV[at]), tonumber(ARGV[at + 1])
    local r = { k = { unpack(KEYS, key, key + keys - 1) } }
    for i = 1, args do r[i] = ARGV[at + 1 + i] end
    requests[#requests + 1] = r
    at, key = at + 2 + args, key + keys
  end
  return requests
end
