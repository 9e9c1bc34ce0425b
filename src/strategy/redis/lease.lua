-- Settles what an instance reports of its lease, decides one charge, and lends: the twin of algorithm/lease.rs.
--
-- KEYS      the record, of a token bucket
-- ARGV      cost, capacity, gain, unit; then epoch, spent, returned, wanted, least, share, period
-- returns   { now, notice, retry_after (0 when allowed), remaining, reset_after, next_after, granted, until, lasts }

local EXPIRY_MARGIN = 1000                       -- milliseconds that a record outlives its use, as in driver.lua
local key, bucket, min = KEYS[1], algorithms.tokenbucket, math.min
local asked = {}
for i, text in ipairs(ARGV) do asked[i] = tonumber(text) end
local cost, capacity, gain, unit = unpack(asked, 1, 4)
local epoch, spent, returned, wanted, least, share, period = unpack(asked, 5, 11)
local full = capacity * unit

-- So much of a hundred, rounded down, exact.
local function percent(of)
  local rest = of % 100
  return (of - rest) / 100 * share + math.floor(rest * share / 100)
end

local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local read = bucket.read(key)
if read.err then return read end

local record, changed = read, nil
local level, at, told, _, leased, lease_until = bucket.refilled(read, now, capacity, gain, unit)
if leased and lease_until == epoch then
  local settled = min(leased, spent + returned)
  if settled > 0 then
    leased = leased - settled
    local ceiling = leased < capacity and (capacity - leased) * unit or 0
    level = min(level + min(returned, settled, capacity) * unit, ceiling)
    local part = level % unit
    record = { (level - part) / unit, at, part, unit, leased, leased > 0 and lease_until or 0, now }
    changed = record
  end
end

local retry, r, s, n, notice, _, tokens, at2, part2, unit2, leased2, until2 =
  bucket.step(record, now, cost, capacity, gain, unit)
local granted, ends, lasts = 0, 0, 0
if retry == 0 then
  leased2, until2 = leased2 or 0, until2 or 0
  local most = min(wanted, percent(tokens), percent(capacity) - leased2)
  if most > 0 and most >= least then
    granted = most
    if leased2 == 0 then until2 = at2 + period end
    tokens, leased2 = tokens - granted, leased2 + granted
    ends, lasts = until2, until2 - at2
  end
  changed = { tokens, at2, part2, unit2, leased2, until2 }
end

if changed then
  local kept, of, whole, part, lent, lent_until = changed[2], changed[4], changed[1], changed[3], changed[5], changed[6]
  local units, fresh_at = whole * of + part, nil
  if lent > 0 then
    local ceiling = lent < capacity and (capacity - lent) * unit or 0
    fresh_at = kept + time_to(full, units, ceiling, lent_until - kept, gain)
  else
    fresh_at = kept + ceil_div(full - units, gain)
  end
  local added = call('HSET', key, 'tokens', as_text[whole], 'last_refill', as_text[kept], 'fraction', as_text[part],
    'fraction_of', as_text[of], 'leased', as_text[lent], 'lease_until', as_text[lent_until])
  if type(added) == 'table' and added.err then return added end
  local expires = call('PEXPIREAT', key, ceil(fresh_at / 1000) + EXPIRY_MARGIN)
  if type(expires) == 'table' and expires.err then return redis.error_reply('PARTLY done: ' .. expires.err) end
end
return { now, notice, retry, r, s, n, granted, ends, lasts }
