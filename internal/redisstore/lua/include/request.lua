-- A script of a verb that is called often takes many requests at a time. Each
-- is the number of its arguments, then these; its keys, as many for each, come
-- after the common ones, one request's after the other's. Each gets its own
-- answer, as if they had come one by one: a refusal is an answer and harms no
-- other request.

-- read_requests returns the requests: lists of arguments. k is where the keys begin.
local function read_requests(keys)
  local requests, n, at = {}, 0, 2
  while ARGV[at] do
    local args = ARGV[at] + 0
    local r = { unpack(ARGV, at + 1, at + args) }
    r.k = 14 + n * keys
    n = n + 1
    requests[n] = r
    at = at + 1 + args
  end
  return requests
end
