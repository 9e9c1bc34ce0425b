-- Token bucket, the twin of token_bucket.rs: the same integers, all below 2^53, so that doubles hold them exactly.

algorithms.tokenbucket = {
  read = function(key)
    return redis.pcall('HMGET', key, 'tokens', 'last_refill', 'fraction', 'fraction_of')
  end,

  step = function(record, now, cost, capacity, gain, unit)
    local tokens, at = integer(record[1]), integer(record[2])
    local fraction, fraction_of = integer(record[3]), integer(record[4])
    local full, level, notice = capacity * unit, nil, 0
    if tokens and at and fraction and fraction_of then
      level = carried(tokens, fraction, fraction_of, at, capacity, unit)
    end
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

  write = function(key, fresh_at, tokens, at, fraction, fraction_of)
    return redis.pcall('HSET', key, 'tokens', tokens, 'last_refill', at, 'fraction', fraction, 'fraction_of', fraction_of)
  end,
}
