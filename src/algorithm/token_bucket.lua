-- Token bucket, the twin of token_bucket.rs: the same integers, all below 2^53, so that doubles hold them exactly.

-- The level in units and the time of a record, which may be of another quota; nil when it is not ours.
local function token_bucket_level(record, capacity, unit)
  local tokens, at, fraction, fraction_of = integers(record[1], record[2], record[3], record[4])
  if not tokens then return nil end
  return carried(tokens, fraction, fraction_of, at, capacity, unit), at
end

algorithms.tokenbucket = {
  read = function(key)
    return redis.pcall('HMGET', key, 'tokens', 'last_refill', 'fraction', 'fraction_of')
  end,

  step = function(record, now, cost, capacity, gain, unit)
    local full, notice = capacity * unit, 0
    local level, at = token_bucket_level(record, capacity, unit)
    if level then
      level, at, notice = refilled(level, at, now, full, gain)
    else
      level, at, notice = full, now, is_foreign(record, 4)
    end
    local left, retry, r, s, n, r2, s2, n2, told, fresh_at = take(level, at, notice, cost, full, gain, unit)
    if not left then return retry, r, s, n, r2, s2, n2, told end
    local part = left % unit
    return retry, r, s, n, r2, s2, n2, told, fresh_at, (left - part) / unit, at, part, unit
  end,

  credit = function(record, _, charged_at, tokens, capacity, gain, unit)
    local full = capacity * unit
    local level, at = token_bucket_level(record, capacity, unit)
    if not level then return nil end
    level = credited(level, at, charged_at, tokens, full, gain, unit)
    local part = level % unit
    return at + ceil_div(full - level, gain), (level - part) / unit, at, part, unit
  end,

  write = function(key, record, tokens, at, fraction, fraction_of)
    at, fraction_of = as_text(at), as_text(fraction_of)
    if record[4] == fraction_of then
      return redis.pcall('HSET', key, 'tokens', tokens, 'last_refill', at, 'fraction', fraction)
    end
    return redis.pcall('HSET', key, 'tokens', tokens, 'last_refill', at, 'fraction', fraction, 'fraction_of', fraction_of)
  end,
}
