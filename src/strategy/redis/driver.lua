-- Decides requests one after the other, each all or nothing, and each as the one before it left the records.
--
-- KEYS      the record of each charge, request after request; those of one request all differ
-- ARGV      groups of requests that ask alike: operation, number of requests, charges of each request; how many keys stand
--           in the group more than once, and a place of each; and for each charge of a request: algorithm, 1 if enforced
--           else 0, cost, capacity, gain, unit
--           operation: 'charge', 'peek' (the same, nothing is written), 'debit' (each charge as far as its tokens go,
--           whatever the others do) or 'give_back' (for each: algorithm, the time of the charge, tokens, and the quota)
-- returns   { now, notices, answers, then for each request that failed: its first charge, counted from 1, and the error }
--           answers are for each charge retry_after (0 when allowed), remaining, reset_after and next_after, in
--           microseconds and tokens: all of them in one string, as doubles of 8 bytes, the lowest byte first, which Redis
--           writes and clients read much faster than so many integers
--
-- Every call is protected, so that a failure is its own request's alone, and all reads of a request precede its writes. A
-- record that several requests of a group ask for can be read once and written once. An error that was met after something of
-- the same request was written starts with PARTLY, so that nobody takes it for "not executed".

local EXPIRY_MARGIN = 1000                       -- milliseconds that a record outlives its use
local MORE_THAN_ANY = EXACT                      -- a cost that no bucket holds: its step tells how the bucket stands
local time = call('TIME')
local now = time[1] * 1000000 + time[2]
-- The numbers of the answers; the errors by charge.
local answers, errors, notices = {}, {}, {}
local keys, arguments = KEYS, ARGV

local function failed(answer)
  return type(answer) == 'table' and answer.err
end

local function tell_nothing(charge)
  local n = 4 * charge
  answers[n - 3], answers[n - 2], answers[n - 1], answers[n] = 0, 0, 0, 0
end

-- Tells a request, of the charges first to last, that it failed.
local function fail(first, last, err)
  for i = first, last do tell_nothing(i) end
  errors[first] = err
end

-- Writes a record, which was read as `read`, and its expiry; nil, or the error and whether something was written before.
local function keep(write, key, read, fresh_at, a, b, c, d, e, f)
  local added = write(key, read, a, b, c, d, e, f)
  if added ~= 0 and failed(added) then return added.err, false end
  local expires = call('PEXPIREAT', key, as_text[ceil(fresh_at / 1000) + EXPIRY_MARGIN])
  if expires ~= 1 and failed(expires) then return expires.err, true end
end

local function partly(err)
  return 'PARTLY done: ' .. err
end

-- Requests of one charge each, first to last, the usual ones: a straight path. Those of one key stand side by side.
local function charge_each(first, last, algorithm, cost, capacity, gain, unit)
  local read_of, step, write, i = algorithm.read, algorithm.step, algorithm.write, first
  repeat
    local from, key = i, keys[i]
    local read, fresh_at, a, b, c, d, e, f = read_of(key)
    local record, err = read, read.err
    repeat
      if err then
        fail(i, i, err)
      else
        local retry, remaining, reset, next_after, notice, at, a2, b2, c2, d2, e2, f2 =
          step(record, now, cost, capacity, gain, unit)
        if notice > 0 then notices[notice] = true end
        local n = 4 * i
        answers[n - 3], answers[n - 2], answers[n - 1], answers[n] = retry, remaining, reset, next_after
        if retry == 0 then
          fresh_at, a, b, c, d, e, f = at, a2, b2, c2, d2, e2, f2
          if keys[i + 1] == key then record = { a, b, c, d, e, f, fresh_at } end
        end
      end
      i = i + 1
    until i > last or keys[i] ~= key
    if fresh_at then
      local refused, is_changed = keep(write, key, read, fresh_at, a, b, c, d, e, f)
      for j = from, refused and i - 1 or 0 do
        if not is_changed then
          fail(j, j, refused)
        elseif answers[4 * j - 3] == 0 then
          fail(j, j, partly(refused))
        end
      end
    end
  until i > last
end

-- Any other requests: so many, each of these charges, the first one's keys after the one at `before`; `shared`, if there is
-- one, is true for keys that stand there more than once. It says what is quicker, and nothing else as long as writes succeed.
local function decide_all(operation, before, requests, charges, shared)
  local count, takes_rest = #charges, operation == 'debit'
  -- What is shared, and all that is given back, stays here until all are decided: of each algorithm the records by key, as
  -- they stand now, and those that are to be written. Other records are written as soon as their request is decided.
  local records, changed = {}, {}
  for _, charge in ipairs(charges) do
    records[charge.algorithm] = records[charge.algorithm] or {}
    charge.records = records[charge.algorithm]
    charge.read, charge.step, charge.write = charge.algorithm.read, charge.algorithm.step, charge.algorithm.write
  end
  -- Of the request at hand: the place before its keys, whether it changed something that stays here, whether it wrote
  -- something, and the error if that was refused.
  local base, is_changed, is_written, refused

  -- The record of a charge, or an error.
  local function record_of(charge, key)
    local records = charge.records
    local record = records[key]
    if not record then
      record = charge.read(key)
      records[key] = record
    end
    return record
  end

  -- Leaves that record so; the next of its key finds it so. Behind its numbers it keeps what writing it takes: the key, the
  -- function, and the record as it was read.
  local function leave(charge, key, record, fresh_at, a, b, c, d, e, f)
    is_changed = true
    if record[7] then
      record[1], record[2], record[3], record[4], record[5], record[6], record[7] = a, b, c, d, e, f, fresh_at
      return
    end
    local left = { a, b, c, d, e, f, fresh_at, key, charge.write, record }
    charge.records[key] = left
    changed[#changed + 1] = left
  end

  -- These two return the error of a record that could not be read.

  local function give_back()
    for i = 1, count do
      local record = record_of(charges[i], keys[base + i])
      if record.err then return record.err end
    end
    for i, charge in ipairs(charges) do
      local key = keys[base + i]
      local record = charge.records[key]
      local fresh_at, a, b, c, d, e, f = charge.algorithm.credit(record, now, charge.mode, charge.tokens,
        charge.capacity, charge.gain, charge.unit)
      if fresh_at then leave(charge, key, record, fresh_at, a, b, c, d, e, f) end
      tell_nothing(base + i)
    end
  end

  -- Decides the charges from i on; `takes` says whether those before them would be taken. Returns an error or, behind a nil,
  -- whether all are. What a charge would leave waits on the stack until those behind it are decided.
  local function decide(i, takes)
    if i > count then return nil, takes end
    local charge, key = charges[i], keys[base + i]
    local is_shared = shared and shared[key]
    local record, step = is_shared and record_of(charge, key) or charge.read(key), charge.step
    if record.err then return record.err end
    local capacity, gain, unit = charge.capacity, charge.gain, charge.unit
    local retry, remaining, reset, next_after, notice, fresh_at, a, b, c, d, e, f =
      step(record, now, charge.tokens, capacity, gain, unit)
    if retry > 0 and takes_rest then
      if remaining > 0 then
        retry, remaining, reset, next_after, notice, fresh_at, a, b, c, d, e, f =
          step(record, now, remaining, capacity, gain, unit)
      end
    elseif retry > 0 and charge.mode == 1 then
      takes = false
    end
    local err
    err, takes = decide(i + 1, takes)
    if err then return err end
    if notice > 0 then notices[notice] = true end
    if fresh_at and takes then
      if is_shared then
        leave(charge, key, record, fresh_at, a, b, c, d, e, f)
      else
        local is_partly
        refused, is_partly = keep(charge.write, key, record, fresh_at, a, b, c, d, e, f)
        is_written = is_written or is_partly or not refused
        -- Then nothing more is taken.
        takes = not refused
      end
    elseif fresh_at then
      -- Who is not charged is told how the bucket stands.
      local _
      _, remaining, reset, next_after = step(record, now, MORE_THAN_ANY, capacity, gain, unit)
    end
    local n = 4 * (base + i)
    answers[n - 3], answers[n - 2], answers[n - 1], answers[n] = retry, remaining, reset, next_after
    return nil, takes
  end

  -- Writes what is to be kept; true if something was refused.
  local function write_back()
    local any = false
    for _, left in ipairs(changed) do
      local err, is_partly = keep(left[9], left[8], left[10], left[7],
        left[1], left[2], left[3], left[4], left[5], left[6])
      if err then
        any, left.refused, left.is_unwritten = true, err, not is_partly
      end
    end
    return any
  end

  -- Fails a request of which a record was not written, although others of its records may have been, some at once. One
  -- that changed nothing keeps its answer if another of its records was: then that stands as it was told.
  local function fail_unwritten(has_changed, has_written)
    local refused, is_partly = nil, has_written
    for i, charge in ipairs(charges) do
      local record = charge.records[keys[base + i]]
      if record and record[7] then
        refused, is_partly = refused or record.refused, is_partly or not record.is_unwritten
      end
    end
    if refused and (has_changed or has_written) then
      fail(base + 1, base + count, is_partly and partly(refused) or refused)
    elseif refused and not is_partly then
      fail(base + 1, base + count, refused)
    end
  end

  local have_changed, have_written, takes = {}, {}, operation ~= 'peek'
  for request = 1, requests do
    base, is_changed, is_written, refused = before + (request - 1) * count, false, false, nil
    local err
    if operation == 'give_back' then err = give_back() else err = decide(1, takes) end
    if refused then err = (is_changed or is_written) and partly(refused) or refused end
    if err then fail(base + 1, base + count, err) end
    have_changed[request], have_written[request] = is_changed, is_written
  end
  if write_back() then
    for request = 1, requests do
      base = before + (request - 1) * count
      fail_unwritten(have_changed[request], have_written[request])
    end
  end
end

local a, before = 1, 0
while a <= #arguments do
  local operation, requests, count = arguments[a], arguments[a + 1] + 0, arguments[a + 2] + 0
  local repeated, shared = arguments[a + 3] + 0, {}
  for i = a + 4, a + 3 + repeated do
    local key = keys[before + arguments[i]]
    if key then shared[key] = true end
  end
  a = a + 4 + repeated
  if operation == 'charge' and count == 1 then
    charge_each(before + 1, before + requests, algorithms[arguments[a]], arguments[a + 2] + 0,
      arguments[a + 3] + 0, arguments[a + 4] + 0, arguments[a + 5] + 0)
  else
    local charges = {}
    for i = 1, count do
      local n = a + 6 * (i - 1)
      charges[i] = {
        algorithm = algorithms[arguments[n]], mode = arguments[n + 1] + 0, tokens = arguments[n + 2] + 0,
        capacity = arguments[n + 3] + 0, gain = arguments[n + 4] + 0, unit = arguments[n + 5] + 0,
      }
    end
    decide_all(operation, before, requests, charges, repeated > 0 and shared)
  end
  a, before = a + 6 * count, before + requests * count
end
local reply = {
  now,
  (notices[FOREIGN_RECORD] and 1 or 0) + (notices[CLOCK_BEHIND] and 2 or 0),
  struct.pack('<' .. string.rep('d', #answers), unpack(answers)),
}
for first, err in pairs(errors) do
  reply[#reply + 1], reply[#reply + 2] = first, err
end
return reply
