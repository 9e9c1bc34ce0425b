-- Decides requests one after the other, each all or nothing, and each as the one before it left the records.
--
-- KEYS      the record of each charge, request after request; those of one request all differ
-- ARGV      groups of requests that ask alike: operation, number of requests, charges of each request, and for each of
--           these charges: algorithm, 1 if enforced else 0, cost, capacity, gain, unit
--           operation: 'charge', 'peek' (the same, nothing is written), 'debit' (each charge as far as its tokens go,
--           whatever the others do) or 'give_back' (for each: algorithm, the time of the charge, tokens, and the quota)
-- returns   { now, notices, answers, then for each request that failed: its first charge, counted from 1, and the error }
--           answers are for each charge retry_after (0 when allowed), remaining, reset_after and next_after, in
--           microseconds and tokens: all of them in one string, as doubles of 8 bytes, the lowest byte first, which Redis
--           writes and clients read much faster than so many integers
--
-- Every call is protected, so that a failure is its own request's alone, and all reads of a request precede its writes. A
-- record that several requests of a group change is read once and written once. An error that was met after something of
-- the same request was written starts with PARTLY, so that nobody takes it for "not executed".

local EXPIRY_MARGIN = 1000                       -- milliseconds that a record outlives its use
local MORE_THAN_ANY = EXACT                      -- a cost that no bucket holds: its step tells how the bucket stands
local time = call('TIME')
local now = time[1] * 1000000 + time[2]
-- The numbers of the answers; the errors by charge.
local answers, errors, notices = {}, {}, {}

local function failed(answer)
  return type(answer) == 'table' and answer.err
end

local function tell(charge, retry_after, remaining, reset_after, next_after)
  local n = 4 * charge
  answers[n - 3], answers[n - 2], answers[n - 1], answers[n] = retry_after, remaining, reset_after, next_after
end

-- Tells a request, of the charges first to last, that it failed.
local function fail(first, last, err)
  for i = first, last do tell(i, 0, 0, 0, 0) end
  errors[first] = err
end

-- Writes a record, which was read as `read`, and its expiry; nil, or the error and whether something was written before.
local function keep(algorithm, key, read, fresh_at, ...)
  local added = algorithm.write(key, read, ...)
  if added ~= 0 and failed(added) then return added.err, false end
  local expires = call('PEXPIREAT', key, as_text(ceil(fresh_at / 1000) + EXPIRY_MARGIN))
  if expires ~= 1 and failed(expires) then return expires.err, true end
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
    local record, err = read, read.err
    repeat
      if err then
        fail(i, i, err)
      else
        local retry, remaining, reset, next_after, notice, at, a2, b2, c2, d2, e2, f2 =
          step(record, now, cost, capacity, gain, unit)
        if notice > 0 then notices[notice] = true end
        tell(i, retry, remaining, reset, next_after)
        if retry == 0 then
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
        elseif answers[4 * j - 3] == 0 then
          fail(j, j, partly(refused))
        end
      end
    end
  until i > last
end

-- Any other requests: so many, each of these charges, the first one's keys after the one at `before`.
local function decide_all(operation, before, requests, charges)
  local count, takes_rest = #charges, operation == 'debit'
  -- Of each algorithm the records by key, as they stand now; and those that are to be written.
  local records, changed = {}, {}
  for _, charge in ipairs(charges) do
    records[charge.algorithm] = records[charge.algorithm] or {}
    charge.records = records[charge.algorithm]
  end
  -- Of the request at hand: the place before its keys, and whether it changed something.
  local base, is_changed

  -- The record of a charge, or an error.
  local function find(charge, key)
    local record = charge.records[key]
    if not record then
      record = charge.algorithm.read(key)
      charge.records[key] = record
    end
    return record
  end

  -- Leaves that record so; the next of its key finds it so.
  local function leave(charge, key, record, fresh_at, a, b, c, d, e, f)
    is_changed = true
    if record.fresh_at then
      record.fresh_at, record[1], record[2], record[3], record[4], record[5], record[6] = fresh_at, a, b, c, d, e, f
      return
    end
    local left = {
      a, b, c, d, e, f, fresh_at = fresh_at, key = key, algorithm = charge.algorithm, read = record,
    }
    charge.records[key] = left
    changed[#changed + 1] = left
  end

  -- These two return the error of a record that could not be read.

  local function give_back()
    for i = 1, count do
      local record = find(charges[i], KEYS[base + i])
      if record.err then return record.err end
    end
    for i, charge in ipairs(charges) do
      local key = KEYS[base + i]
      local record = charge.records[key]
      local fresh_at, a, b, c, d, e, f = charge.algorithm.credit(record, now, charge.mode, charge.tokens,
        charge.capacity, charge.gain, charge.unit)
      if fresh_at then leave(charge, key, record, fresh_at, a, b, c, d, e, f) end
      tell(base + i, 0, 0, 0, 0)
    end
  end

  -- Decides the charges from i on; `takes` says whether those before them would be taken. Returns an error or, behind a nil,
  -- whether all are. What a charge would leave waits on the stack until those behind it are decided.
  local function decide(i, takes)
    if i > count then return nil, takes end
    local charge, key = charges[i], KEYS[base + i]
    local record, step = find(charge, key), charge.algorithm.step
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
      leave(charge, key, record, fresh_at, a, b, c, d, e, f)
    elseif fresh_at then
      -- Who is not charged is told how the bucket stands.
      local _
      _, remaining, reset, next_after = step(record, now, MORE_THAN_ANY, capacity, gain, unit)
    end
    tell(base + i, retry, remaining, reset, next_after)
    return nil, takes
  end

  -- Writes what is to be kept; true if something was refused.
  local function write_back()
    local any = false
    for _, left in ipairs(changed) do
      local err, is_partly = keep(left.algorithm, left.key, left.read, left.fresh_at,
        left[1], left[2], left[3], left[4], left[5], left[6])
      if err then
        any, left.refused, left.is_unwritten = true, err, not is_partly
      end
    end
    return any
  end

  -- Fails a request of which a record was not written, although others of its records may have been. One that changed
  -- nothing keeps its answer if another of its records was: then that stands as it was told.
  local function fail_unwritten(has_changed)
    local refused, is_partly
    for i, charge in ipairs(charges) do
      local record = charge.records[KEYS[base + i]]
      if record and record.fresh_at then
        refused, is_partly = refused or record.refused, is_partly or not record.is_unwritten
      end
    end
    if refused and has_changed then
      fail(base + 1, base + count, is_partly and partly(refused) or refused)
    elseif refused and not is_partly then
      fail(base + 1, base + count, refused)
    end
  end

  local have_changed, takes = {}, operation ~= 'peek'
  for request = 1, requests do
    base, is_changed = before + (request - 1) * count, false
    local err
    if operation == 'give_back' then err = give_back() else err = decide(1, takes) end
    if err then fail(base + 1, base + count, err) end
    have_changed[request] = is_changed
  end
  if write_back() then
    for request = 1, requests do
      base = before + (request - 1) * count
      fail_unwritten(have_changed[request])
    end
  end
end

local a, before = 1, 0
while a <= #ARGV do
  local operation, requests, count = ARGV[a], ARGV[a + 1] + 0, ARGV[a + 2] + 0
  a = a + 3
  if operation == 'charge' and count == 1 then
    charge_each(before + 1, before + requests, algorithms[ARGV[a]], ARGV[a + 2] + 0,
      ARGV[a + 3] + 0, ARGV[a + 4] + 0, ARGV[a + 5] + 0)
  else
    local charges = {}
    for i = 1, count do
      local n = a + 6 * (i - 1)
      charges[i] = {
        algorithm = algorithms[ARGV[n]], mode = ARGV[n + 1] + 0, tokens = ARGV[n + 2] + 0,
        capacity = ARGV[n + 3] + 0, gain = ARGV[n + 4] + 0, unit = ARGV[n + 5] + 0,
      }
    end
    decide_all(operation, before, requests, charges)
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
