-- Decides one request, all or nothing: reads every record, decides, and writes only if every enforced charge fits.
--
-- KEYS[i]                   the record of charge i; all differ
-- ARGV[6i - 5 .. 6i]        algorithm, 1 if enforced else 0, cost, capacity, gain, unit
-- returns                   { now, then for each charge: retry_after (0 when allowed), remaining, reset_after,
--                             next_after, notice }, all in microseconds and tokens; or the error of a bad record
--
-- Every call is protected, so that a failure is this request's own; all reads precede all writes.

local EXPIRY_MARGIN = 1000                       -- milliseconds that a record outlives its use
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]

local function expire(key, fresh_at)
  return redis.pcall('PEXPIREAT', key, ceil_div(fresh_at, 1000) + EXPIRY_MARGIN)
end

local function failed(reply)
  return type(reply) == 'table' and reply.err
end

local steps, admitted = {}, true
for i, key in ipairs(KEYS) do
  local a = 6 * i - 6
  local algorithm = algorithms[ARGV[a + 1]]
  local record = algorithm.read(key)
  if failed(record) then return record end
  local step = { algorithm.step(record, now, tonumber(ARGV[a + 3]), tonumber(ARGV[a + 4]), tonumber(ARGV[a + 5]), tonumber(ARGV[a + 6])) }
  if step[1] > 0 and ARGV[a + 2] == '1' then admitted = false end
  steps[i] = step
end

local reply = { now }
for i, key in ipairs(KEYS) do
  local step, standing = steps[i], 2
  if admitted and step[1] == 0 then
    standing = 5
    local written = algorithms[ARGV[6 * i - 5]].write(key, unpack(step, 9))
    if failed(written) then return written end
    written = expire(key, step[9])
    if failed(written) then return written end
  end
  local r = 5 * i - 3
  reply[r], reply[r + 1], reply[r + 2], reply[r + 3], reply[r + 4] =
    step[1], step[standing], step[standing + 1], step[standing + 2], step[8]
end
return reply
