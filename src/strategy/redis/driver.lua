-- Decides requests one after the other, each all or nothing, and each as the one before it left the records.
--
-- KEYS      the record of each charge, request after request; those of one request all differ
-- ARGV      groups of requests that ask alike: operation, number of requests, charges of each request, and for each of
--           these charges: algorithm, 1 if enforced else 0, cost, capacity, gain, unit
--           operation: 'charge', 'peek' (the same, nothing is written), 'debit' (each charge as far as its tokens go,
--           whatever the others do) or 'give_back' (for each: algorithm, the time of the charge, tokens, and the quota)
-- returns   { now, notices, then for each charge: retry_after (0 when allowed), remaining, reset_after, next_after }
--           in microseconds and tokens; of a request that failed, the error stands in the place of its first number
--
-- Every call is protected, so that a failure is its own request's alone, and all reads of a request precede its writes. A
-- record that several requests of a group change is read once and written once. An error that was met after something of
-- the same request was written starts with PARTLY, so that nobody takes it for "not executed".

local EXPIRY_MARGIN = 1000                       -- milliseconds that a record outlives its use
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local reply, notices = { now, 0 }, {}

local function failed(answer)
  return type(answer) == 'table' and answer.err
end

local function tell(charge, retry_after, remaining, reset_after, next_after)
  local r = 4 * charge - 1
  reply[r], reply[r + 1], reply[r + 2], reply[r + 3] = retry_after, remaining, reset_after, next_after
end

-- Tells a request, of the charges first to last, that it failed.
local function fail(first, last, err)
  for i = first, last do tell(i, 0, 0, 0, 0) end
  reply[4 * first - 1] = err
end

-- Writes a record and its expiry; nil, or the error and whether something was written before it.
local function keep(algorithm, key, fresh_at, ...)
  local err = failed(algorithm.write(key, fresh_at, ...))
  if err then return err, false end
  err = failed(redis.pcall('PEXPIREAT', key, ceil_div(fresh_at, 1000) + EXPIRY_MARGIN))
  if err then return err, true end
end

local function partly(err)
  return 'PARTLY done: ' .. err
end

-- Requests of one charge each, first to last, the usual ones: a straight path. Those of one key stand side by side.
local function charge_each(first, last, algorithm, cost, capacity, gain, unit)
  local step, i = algorithm.step, first
  repeat
    local from, key = i, KEYS[i]
    local record, fresh_at, a, b, c, d, e, f = algorithm.read(key)
    local err = failed(record)
    repeat
      if err then
        fail(i, i, err)
      else
        local retry, r, s, n, r2, s2, n2, notice, at, a2, b2, c2, d2, e2, f2 =
          step(record, now, cost, capacity, gain, unit)
        notices[notice] = true
        if retry > 0 then
          tell(i, retry, r, s, n)
        else
          tell(i, 0, r2, s2, n2)
          fresh_at, a, b, c, d, e, f = at, a2, b2, c2, d2, e2, f2
          if KEYS[i + 1] == key then record = { a, b, c, d, e, f } end
        end
      end
      i = i + 1
    until i > last or KEYS[i] ~= key
    if fresh_at then
      local refused, is_changed = keep(algorithm, key, fresh_at, a, b, c, d, e, f)
      for j = from, refused and i - 1 or 0 do
        if not is_changed then
          fail(j, j, refused)
        elseif reply[4 * j - 1] == 0 then
          fail(j, j, partly(refused))
        end
      end
    end
  until i > last
end

-- What a group has seen of the records of each algorithm: as they were read or are to be written, and the new ones.
local function memory_of(charges)
  local memory = {}
  for _, charge in ipairs(charges) do
    memory[charge.algorithm] = { records = {}, kept = {}, refused = {} }
  end
  return memory
end

-- The record of a charge, or nil and the error.
local function recall(memory, charge, key)
  local records = memory[charge.algorithm].records
  local record = records[key]
  if not record then
    record = charge.algorithm.read(key)
    records[key] = record
  end
  if failed(record) then return nil, record.err end
  return record
end

local function remember(memory, charge, key, ...)
  local of = memory[charge.algorithm]
  of.kept[key], of.records[key] = { ... }, { select(2, ...) }
end

-- A request of the charges from the one after `before` on; true if it may have changed something.
local function decide(operation, before, charges, memory)
  local steps, admitted, is_changed = {}, true, false
  for i, charge in ipairs(charges) do
    local record, err = recall(memory, charge, KEYS[before + i])
    if err then
      fail(before + 1, before + #charges, err)
      return false
    end
    local algorithm, tokens, capacity, gain, unit =
      charge.algorithm, charge.tokens, charge.capacity, charge.gain, charge.unit
    if operation == 'give_back' then
      steps[i] = { algorithm.credit(record, now, charge.mode, tokens, capacity, gain, unit) }
    else
      local step = { algorithm.step(record, now, tokens, capacity, gain, unit) }
      if operation == 'debit' then
        if step[1] > 0 and step[2] > 0 then step = { algorithm.step(record, now, step[2], capacity, gain, unit) } end
      elseif charge.mode == 1 and step[1] > 0 then
        admitted = false
      end
      notices[step[8]] = true
      steps[i] = step
    end
  end
  for i, charge in ipairs(charges) do
    local step, key, standing = steps[i], KEYS[before + i], 2
    if operation == 'give_back' then
      tell(before + i, 0, 0, 0, 0)
      if step[1] then
        remember(memory, charge, key, unpack(step))
        is_changed = true
      end
    else
      if operation ~= 'peek' and admitted and step[1] == 0 then
        standing = 5
        remember(memory, charge, key, unpack(step, 9))
        is_changed = true
      end
      tell(before + i, step[1], step[standing], step[standing + 1], step[standing + 2])
    end
  end
  return is_changed
end

-- Writes what is to be kept; whether something was refused.
local function write_back(memory)
  local any = false
  for algorithm, of in pairs(memory) do
    for key, kept in pairs(of.kept) do
      local err, is_changed = keep(algorithm, key, unpack(kept))
      if err then
        any, of.refused[key] = true, err
        if not is_changed then of.kept[key] = nil end
      end
    end
  end
  return any
end

-- Fails the request of which a record was not written, although others of its records may have been.
local function fail_unwritten(before, charges, memory, is_changed)
  local refused, is_partly
  for i, charge in ipairs(charges) do
    local of, key = memory[charge.algorithm], KEYS[before + i]
    refused = refused or of.refused[key]
    is_partly = is_partly or of.kept[key]
  end
  if refused and is_changed then
    fail(before + 1, before + #charges, is_partly and partly(refused) or refused)
  elseif refused and not is_partly then
    fail(before + 1, before + #charges, refused)
  end
end

local function decide_all(operation, before, requests, charges)
  local memory, changes = memory_of(charges), {}
  for request = 1, requests do
    changes[request] = decide(operation, before + (request - 1) * #charges, charges, memory)
  end
  if write_back(memory) then
    for request = 1, requests do
      fail_unwritten(before + (request - 1) * #charges, charges, memory, changes[request])
    end
  end
end

local a, before = 1, 0
while a <= #ARGV do
  local operation, requests, count, charges = ARGV[a], tonumber(ARGV[a + 1]), tonumber(ARGV[a + 2]), {}
  a = a + 3
  for i = 1, count do
    charges[i] = {
      algorithm = algorithms[ARGV[a]], mode = tonumber(ARGV[a + 1]), tokens = tonumber(ARGV[a + 2]),
      capacity = tonumber(ARGV[a + 3]), gain = tonumber(ARGV[a + 4]), unit = tonumber(ARGV[a + 5]),
    }
    a = a + 6
  end
  local one = charges[1]
  if operation == 'charge' and count == 1 then
    charge_each(before + 1, before + requests, one.algorithm, one.tokens, one.capacity, one.gain, one.unit)
  else
    decide_all(operation, before, requests, charges)
  end
  before = before + requests * count
end
reply[2] = (notices[FOREIGN_RECORD] and 1 or 0) + (notices[CLOCK_BEHIND] and 2 or 0)
return reply
