-- Token bucket, the twin of token_bucket.rs: the same integers, all below 2^53, so that doubles hold them exactly.

-- The level in units and the time of a record, which may be of another quota; nil when it is not ours. If tokens of it are
-- lent, also the level that it fills to meanwhile, how many are lent, and until when.
local function token_bucket_level(record, capacity, unit)
  local tokens, at, fraction, fraction_of = integers(record)
  if not tokens then return nil end
  local level = carried(tokens, fraction, fraction_of, at, capacity, unit)
  if not record[5] then return level, at end
  local leased, lease_until = integer(record[5]), integer(record[6])
  if not level or not leased or not lease_until or leased == 0
      or lease_until <= at or lease_until > at + LONGEST_LEASE then
    return level, at
  end
  local ceiling = leased < capacity and (capacity - leased) * unit or 0
  return level < ceiling and level or ceiling, at, ceiling, leased, lease_until
end

-- The same after refilling, with a notice behind the time; a record that is not ours is a full bucket.
local function token_bucket_refilled(record, now, capacity, gain, unit)
  local level, at, ceiling, leased, lease_until = token_bucket_level(record, capacity, unit)
  local full, notice = capacity * unit, 0
  if not level then return full, now, is_foreign(record, 6) end
  if not leased then return refilled(level, at, now, full, gain) end
  if now >= lease_until then
    level = refilled(level, at, lease_until, ceiling, gain)
    return refilled(level, lease_until, now, full, gain)
  end
  level, at, notice = refilled(level, at, now, ceiling, gain)
  return level, at, notice, ceiling, leased, lease_until
end

algorithms.tokenbucket = {
  read = function(key)
    local record = call('HMGET', key, 'tokens', 'last_refill', 'fraction', 'fraction_of', 'leased')
    -- A field that is not there costs as much as one that is. A record of nothing but this one counts as none.
    if record[5] and record[5] ~= '0' then record[6] = call('HMGET', key, 'lease_until')[1] end
    return record
  end,

  refilled = token_bucket_refilled,

  step = function(record, now, cost, capacity, gain, unit)
    local full, notice = capacity * unit, 0
    local tokens, at, fraction, fraction_of = integers(record)
    local level = tokens and carried(tokens, fraction, fraction_of, at, capacity, unit)
    local ceiling, leased, lease_until
    if not level then
      level, at, notice = full, now, is_foreign(record, 6)
    elseif record[5] then
      level, at, notice, ceiling, leased, lease_until = token_bucket_refilled(record, now, capacity, gain, unit)
    end
    local left, part, at, retry, remaining, reset, next_after, behind = take(level, at, now, cost, full, gain, unit)
    if behind > 0 then notice = behind end
    if leased then
      local wait = lease_until - at
      reset = time_to(full, left, ceiling, wait, gain)
      next_after = time_to(left - part + unit, left, ceiling, wait, gain)
      if retry > 0 then retry = time_to(cost * unit, left, ceiling, wait, gain) end
    end
    if retry > 0 then return retry, remaining, reset, next_after, notice end
    return 0, remaining, reset, next_after, notice, at + reset, remaining, at, part, unit, leased, lease_until
  end,

  credit = function(record, _, charged_at, tokens, capacity, gain, unit)
    local full = capacity * unit
    local level, at, ceiling, leased, lease_until = token_bucket_level(record, capacity, unit)
    if not level then return nil end
    level = credited(level, at, charged_at, tokens, ceiling or full, gain, unit)
    local part = level % unit
    if leased then
      local fresh_at = at + time_to(full, level, ceiling, lease_until - at, gain)
      return fresh_at, (level - part) / unit, at, part, unit, leased, lease_until
    end
    return at + ceil_div(full - level, gain), (level - part) / unit, at, part, unit
  end,

  -- What is lent stays as it is, for only lease.lua changes it; what is lent no more is written off.
  write = function(key, record, tokens, at, fraction, fraction_of, leased)
    tokens, at, fraction, fraction_of = as_text[tokens], as_text[at], as_text[fraction], as_text[fraction_of]
    if record[5] and record[5] ~= '0' and not leased then
      return call('HSET', key, 'tokens', tokens, 'last_refill', at, 'fraction', fraction, 'fraction_of', fraction_of,
        'leased', '0')
    end
    if record[4] == fraction_of then
      -- A bucket that was full has as much left after each request.
      if record[1] == tokens and record[3] == fraction then return call('HSET', key, 'last_refill', at) end
      return call('HSET', key, 'tokens', tokens, 'last_refill', at, 'fraction', fraction)
    end
    return call('HSET', key, 'tokens', tokens, 'last_refill', at, 'fraction', fraction, 'fraction_of', fraction_of)
  end,
}
