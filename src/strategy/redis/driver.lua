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

-- Writes a record, which was read as `record`, and its expiry; nil, or the error and whether something was written before.
local function keep(algorithm, key, record, fresh_at, ...)
  local err = failed(algorithm.write(key, record, ...))
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
    local read, fresh_at, a, b, c, d, e, f = algorithm.read(key)
    local record, err = read, failed(read)
    repeat
      if err then
        fail(i, i, err)
      else
        local retry, r, s, n, r2, s2, n2, notice, at, a2, b2, c2, d2, e2, f2 =
          step(record, now, cost, capacity, gain, unit)
        if notice > 0 then notices[notice] = true end
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
      local refused, is_changed = keep(algorithm, key, read, fresh_at, a, b, c, d, e, f)
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

-- Any other requests: so many, each of these charges, the first one's keys after the one at `before`.
local function decide_all(operation, before, requests, charges)
  -- Of each algorithm: records as they were read, as they stand now, what of these is to be written, what was not.
  local memory, changes = {}, {}
  for _, charge in ipairs(charges) do
    memory[charge.algorithm] = { read = {}, records = {}, kept = {}, refused = {} }
  end

  -- The record of a charge, or nil and the error.
  local function recall(charge, key)
    local of = memory[charge.algorithm]
    local record = of.records[key]
    if not record then
      record = charge.algorithm.read(key)
      of.read[key], of.records[key] = record, record
    end
    if failed(record) then return nil, record.err end
    return record
  end

  local function remember(charge, key, ...)
    local of = memory[charge.algorithm]
    of.kept[key], of.records[key] = { ... }, { select(2, ...) }
  end

  local function give_back(base)
    local kept, is_changed = {}, false
    for i, charge in ipairs(charges) do
      local record, err = recall(charge, KEYS[base + i])
      if err then return fail(base + 1, base + #charges, err) end
      kept[i] = { charge.algorithm.credit(record, now, charge.mode, charge.tokens,
        charge.capacity, charge.gain, charge.unit) }
    end
    for i, charge in ipairs(charges) do
      tell(base + i, 0, 0, 0, 0)
      if kept[i][1] then
        remember(charge, KEYS[base + i], unpack(kept[i]))
        is_changed = true
      end
    end
    return is_changed
  end

  -- True if it may have changed something.
  local function decide(base)
    local steps, takes, is_changed = {}, operation ~= 'peek', false
    for i, charge in ipairs(charges) do
      local record, err = recall(charge, KEYS[base + i])
      if err then return fail(base + 1, base + #charges, err) end
      local algorithm, capacity, gain, unit = charge.algorithm, charge.capacity, charge.gain, charge.unit
      local step = { algorithm.step(record, now, charge.tokens, capacity, gain, unit) }
      if operation == 'debit' then
        if step[1] > 0 and step[2] > 0 then step = { algorithm.step(record, now, step[2], capacity, gain, unit) } end
      elseif charge.mode == 1 and step[1] > 0 then
        takes = false
      end
      steps[i], notices[step[8]] = step, true
    end
    for i, charge in ipairs(charges) do
      local step, standing = steps[i], 2
      if takes and step[1] == 0 then
        standing, is_changed = 5, true
        remember(charge, KEYS[base + i], unpack(step, 9))
      end
      tell(base + i, step[1], step[standing], step[standing + 1], step[standing + 2])
    end
    return is_changed
  end

  -- Writes what is to be kept; true if something was refused.
  local function write_back()
    local any = false
    for algorithm, of in pairs(memory) do
      for key, kept in pairs(of.kept) do
        local err, is_changed = keep(algorithm, key, of.read[key], unpack(kept))
        if err then
          any, of.refused[key] = true, err
          if not is_changed then of.kept[key] = nil end
        end
      end
    end
    return any
  end

  -- Fails a request of which a record was not written, although others of its records may have been.
  local function fail_unwritten(base, is_changed)
    local refused, is_partly
    for i, charge in ipairs(charges) do
      local of, key = memory[charge.algorithm], KEYS[base + i]
      refused, is_partly = refused or of.refused[key], is_partly or of.kept[key]
    end
    if refused and is_changed then
      fail(base + 1, base + #charges, is_partly and partly(refused) or refused)
    elseif refused and not is_partly then
      fail(base + 1, base + #charges, refused)
    end
  end

  local one = operation == 'give_back' and give_back or decide
  for request = 1, requests do
    changes[request] = one(before + (request - 1) * #charges) or false
  end
  if write_back() then
    for request = 1, requests do
      fail_unwritten(before + (request - 1) * #charges, changes[request])
    end
  end
end

local a, before = 1, 0
while a <= #ARGV do
  local operation, requests, count = ARGV[a], tonumber(ARGV[a + 1]), tonumber(ARGV[a + 2])
  a = a + 3
  if operation == 'charge' and count == 1 then
    charge_each(before + 1, before + requests, algorithms[ARGV[a]], tonumber(ARGV[a + 2]),
      tonumber(ARGV[a + 3]), tonumber(ARGV[a + 4]), tonumber(ARGV[a + 5]))
  else
    local charges = {}
    for i = 1, count do
      local n = a + 6 * (i - 1)
      charges[i] = {
        algorithm = algorithms[ARGV[n]], mode = tonumber(ARGV[n + 1]), tokens = tonumber(ARGV[n + 2]),
        capacity = tonumber(ARGV[n + 3]), gain = tonumber(ARGV[n + 4]), unit = tonumber(ARGV[n + 5]),
      }
    end
    decide_all(operation, before, requests, charges)
  end
  a, before = a + 6 * count, before + requests * count
end
reply[2] = (notices[FOREIGN_RECORD] and 1 or 0) + (notices[CLOCK_BEHIND] and 2 or 0)
return reply
