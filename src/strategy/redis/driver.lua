-- Decides one request, all or nothing: reads every record, decides, and writes only if every enforced charge fits.
--
-- KEYS[i]                   the record of charge i; all differ
-- ARGV[1]                   'charge', 'peek' (the same, nothing is written), 'debit' (each charge as far as its tokens
--                           go, whatever the others do) or 'give_back'
-- ARGV[6i - 4 .. 6i + 1]    algorithm, 1 if enforced else 0, cost, capacity, gain, unit
--                           to give back: algorithm, the time of the charge, tokens, capacity, gain, unit
-- returns                   { now, then for each charge: retry_after (0 when allowed), remaining, reset_after,
--                             next_after, notice }, all in microseconds and tokens; or the error of a bad record
--
-- Every call is protected, so that a failure is this request's own; all reads precede all writes. An error that was met
-- after something was written starts with PARTLY, so that nobody takes it for "not executed".

local EXPIRY_MARGIN = 1000                       -- milliseconds that a record outlives its use
local operation = ARGV[1]
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]

local function failed(reply)
  return type(reply) == 'table' and reply.err
end

local is_changed = false

local function written(reply)
  if not failed(reply) then
    is_changed = true
  elseif is_changed then
    return { err = 'PARTLY done: ' .. reply.err }
  else
    return reply
  end
end

-- Writes a record and its expiry; nil, or the error.
local function keep(algorithm, key, fresh_at, ...)
  return written(algorithm.write(key, fresh_at, ...))
    or written(redis.pcall('PEXPIREAT', key, ceil_div(fresh_at, 1000) + EXPIRY_MARGIN))
end

local steps, admitted = {}, true
for i, key in ipairs(KEYS) do
  local a = 6 * i - 5
  local algorithm, mode, tokens = algorithms[ARGV[a + 1]], ARGV[a + 2], tonumber(ARGV[a + 3])
  local capacity, gain, unit = tonumber(ARGV[a + 4]), tonumber(ARGV[a + 5]), tonumber(ARGV[a + 6])
  local record = algorithm.read(key)
  if failed(record) then return record end
  if operation == 'give_back' then
    steps[i] = { algorithm.credit(record, now, tonumber(mode), tokens, capacity, gain, unit) }
  else
    local step = { algorithm.step(record, now, tokens, capacity, gain, unit) }
    if operation == 'debit' then
      if step[1] > 0 and step[2] > 0 then step = { algorithm.step(record, now, step[2], capacity, gain, unit) } end
    elseif mode == '1' and step[1] > 0 then
      admitted = false
    end
    steps[i] = step
  end
end

local reply = { now }
for i, key in ipairs(KEYS) do
  local algorithm, step, standing = algorithms[ARGV[6 * i - 4]], steps[i], 2
  if operation == 'give_back' then
    local err = step[1] and keep(algorithm, key, unpack(step))
    if err then return err end
  else
    if operation ~= 'peek' and admitted and step[1] == 0 then
      standing = 5
      local err = keep(algorithm, key, unpack(step, 9))
      if err then return err end
    end
    local r = 5 * i - 3
    reply[r], reply[r + 1], reply[r + 2], reply[r + 3], reply[r + 4] =
      step[1], step[standing], step[standing + 1], step[standing + 2], step[8]
  end
end
return reply
