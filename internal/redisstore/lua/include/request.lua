-- A script of a verb that is called often takes many requests at a time. Each
-- is one packed argument; its keys, as many for each, come after the common
-- ones, one request's after the other's. Each gets its own answer, as if they
-- had come one by one: a refusal is an answer and harms no other request.
-- $include(binary.lua)

-- read_requests returns the requests: lists of arguments. k is where the keys begin.
local function read_requests(keys)
  local requests = {}
  for i = 2, #ARGV do
    local r = { cmsgpack.unpack(ARGV[i]) }
    r.k = 14 + (i - 2) * keys
    requests[i - 1] = r
  end
  return requests
end
